"""From task files to arrays: named columns -> token ids (cached) -> batches of a few static shapes."""
