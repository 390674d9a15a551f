"""Checkpoint formats of other frameworks, read into the canonical folder (`core.checkpoint`) and written from it."""
