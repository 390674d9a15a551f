"""Checkpoint formats of other frameworks. Empty so far: the canonical folder (`core.checkpoint`) is read and written."""
