"""How long texts may be. Nothing is imported here, since the command line's help says it."""

LONGEST = 1 << 16
"""Tokens of a text: attention is quadratic in them, and no encoder here has positions for more."""
