"""MindSpore: CPU, and Ascend where CANN is installed."""

from . import ending  # noqa: F401  (before MindSpore is imported)
