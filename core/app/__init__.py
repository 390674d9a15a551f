"""The top of the house: commands and their Python API. Only this part reaches backends and converters."""
