"""Answers that another model gave, read from a file: any provider's records, joined to the rows of a task."""
