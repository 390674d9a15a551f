"""The names of benchmark runs: METHOD-SEED, and `teacher` without a seed. What starts the runs, times them and makes tables
of them agrees on these."""

from __future__ import annotations

REFERENCE = "teacher"

# Method -> its row in a table, in the tables' order.
TITLES = {
    "teacher": "teacher",
    "finetune": "fine-tuned (labels only)",
    "kd": "`kd`",
    "pkd": "`pkd`",
    "theseus": "`theseus`",
    "minilm": "`minilm`",
    "tinybert_td": "`tinybert_td`",
    "tinybert_td+aug": "`tinybert_td`, augmented texts",
    "t4tiny": "`t4tiny`, 4 narrow layers from random weights",
    "t4tiny-alone": "T4-tiny alone (labels only)",
    "bilstm": "`bilstm`",
    "bilstm-alone": "BiLSTM alone (labels only)",
}
# Trained on labels alone: what a student of the same size gains by a teacher is its distance from these.
TWINS = ("finetune", "t4tiny-alone", "bilstm-alone")


def method_of(name: str) -> str:
    """The method in the name of a run."""
    method, separator, seed = name.rpartition("-")
    return method if separator and seed.isdigit() else name


def order_of(method: str) -> tuple[int, str]:
    """Where a method's row stands: as in `TITLES`, unknown ones last."""
    known = list(TITLES)
    return known.index(method) if method in TITLES else len(known), method
