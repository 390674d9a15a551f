"""The names of benchmark runs: METHOD-SEED, METHOD-3l-SEED where the number of layers is chosen, METHOD-4x312-SEED of students
that start from a small model of their own width, and `teacher` without a seed. What starts the runs, times them and makes tables
of them agrees on these."""

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
    "reranker-alone": "fine-tuned (labels only)",
    "reranker": "`reranker`, preset `distil`",
    "reranker_lists": "`reranker`, preset `distil_lists`",
    "reranker_scores": "`reranker`, preset `distil_scores`",
    "vectors-alone": "embeddings, `contrastive` (labels only)",
    "vectors": "embeddings, preset `distil_reranker`",
}
# Trained on labels alone: what a student of the same size gains by a teacher is its distance from these.
TWINS = ("finetune", "t4tiny-alone", "bilstm-alone", "ner-alone", "reranker-alone", "vectors-alone")
_SIZE = re.compile(r"(.+)-(?:(\d+)l|(\d+)x(\d+))")


def run_name(method: str, size: int | str | None, seed: int) -> str:
    """The name of a run; size: a number of layers, LAYERSxWIDTH, or None, the method's own."""
    if size is None:
        return f"{method}-{seed}"
    return f"{method}-{size}-{seed}" if isinstance(size, str) else f"{method}-{size}l-{seed}"


def method_of(name: str) -> str:
    """The method in the name of a run."""
    method, separator, seed = name.rpartition("-")
    return method if separator and seed.isdigit() else name


def parts_of(method: str) -> tuple[str, int | None, int | None]:
    """The recipe's method, the number of layers and the width in what `method_of` gives."""
    found = _SIZE.fullmatch(method)
    if found is None:
        return method, None, None
    own, layers, small_layers, width = found.groups()
    return own, int(layers or small_layers), None if width is None else int(width)


def title_of(method: str) -> str:
    """The row of a method, which says its layers, and its width, where they were chosen."""
    own, layers, width = parts_of(method)
    title = TITLES.get(own, f"`{own}`")
    if width is not None:
        return f"{layers} x {width}, {title}"
    return title if layers is None else f"{layers} layer{'' if layers == 1 else 's'}, {title}"


def is_twin(method: str) -> bool:
    """Whether students of a method are trained on labels alone."""
    return parts_of(method)[0] in TWINS


def order_of(method: str) -> tuple[bool, bool, int, int, str]:
    """Where a method's row stands: the teacher, then students of its width, the most layers first, then narrower ones; each as in
    `TITLES`, unknown ones last."""
    own, layers, width = parts_of(method)
    known = list(TITLES)
    place = known.index(own) if own in TITLES else len(known)
    return (method != REFERENCE, width is not None, -(layers or 0), place, method)
