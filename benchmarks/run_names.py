"""The names of benchmark runs: METHOD-SEED, or METHOD-3l-SEED where the number of layers is chosen, and `teacher` without a
seed. What starts the runs, times them and makes tables of them agrees on these."""

from __future__ import annotations

import re

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
    "ner-alone": "fine-tuned (labels only)",
    "ner": "`ner`, preset `distil`",
    "ner_layers": "`ner`, preset `distil_layers`",
}
# Trained on labels alone: what a student of the same size gains by a teacher is its distance from these.
TWINS = ("finetune", "t4tiny-alone", "bilstm-alone", "ner-alone")
_LAYERS = re.compile(r"(.+)-(\d+)l")


def run_name(method: str, layers: int | None, seed: int) -> str:
    """The name of a run; None layers: as many as the method has."""
    return f"{method}-{seed}" if layers is None else f"{method}-{layers}l-{seed}"


def method_of(name: str) -> str:
    """The method in the name of a run."""
    method, separator, seed = name.rpartition("-")
    return method if separator and seed.isdigit() else name


def parts_of(method: str) -> tuple[str, int | None]:
    """The recipe's method and the number of layers in what `method_of` gives."""
    found = _LAYERS.fullmatch(method)
    return (found[1], int(found[2])) if found else (method, None)


def title_of(method: str) -> str:
    """The row of a method, which says its layers where they were chosen."""
    own, layers = parts_of(method)
    title = TITLES.get(own, f"`{own}`")
    return title if layers is None else f"{layers} layer{'' if layers == 1 else 's'}, {title}"


def is_twin(method: str) -> bool:
    """Whether students of a method are trained on labels alone."""
    return parts_of(method)[0] in TWINS


def order_of(method: str) -> tuple[bool, int, int, str]:
    """Where a method's row stands: the teacher, then students with the most layers, each as in `TITLES`, unknown ones last."""
    own, layers = parts_of(method)
    known = list(TITLES)
    return (method != REFERENCE, -(layers or 0), known.index(own) if own in TITLES else len(known), method)
