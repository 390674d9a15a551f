"""The top of the house: commands and their Python API. Only this part reaches backends and converters."""

from ..threads import set_up

set_up()  # before anything here imports a library that reads it
