"""More training texts from those that there are: data in, data out, before any training. Published methods, on NumPy."""
