"""Trainings of BERT-of-Theseus keep predecessor and successor in one encoder: which of them is read."""

from __future__ import annotations

import re

from ..core.errors import CheckpointError
from .reading import ReadOptions, allowed
from .rules import Spelling

_SUCCESSOR = re.compile(r"encoder\.scc_layer\.|encoder-student-layer_")
"""As the published code and OneFlow's name it."""
_PREDECESSOR = re.compile(r"encoder\.layer\.|encoder-layer_")


def one_of_theseus(spelling: Spelling, options: ReadOptions) -> int | None:
    """One of the two is read, if it is said which. Returns the number of layers of a successor. Raises CheckpointError."""
    successors = {source: name for source, name in spelling.names.items() if _SUCCESSOR.search(name)}
    if not successors:
        return None
    if not options.successor:
        if len(allowed(successors, options.allow_extra)) == len(successors):
            return None
        raise CheckpointError(
            f"{next(iter(successors))} is of the successor in a training of BERT-of-Theseus, whose predecessor is in the same "
            "encoder: --successor reads the successor (in a recipe: read.successor), --allow-extra with a pattern of its names "
            "leaves it out"
        )
    predecessors = [source for source, name in spelling.names.items() if _PREDECESSOR.search(name)]
    spelling.dropped |= dict.fromkeys(predecessors, "of the predecessor, whose successor is read")
    for source in predecessors:
        del spelling.names[source]
    for source, name in successors.items():
        spelling.names[source] = _SUCCESSOR.sub(_replaced, name)
    return len({skeleton[0] for name in successors.values() if (skeleton := re.findall("[0-9]+", name))})


def _replaced(found: re.Match[str]) -> str:
    return "encoder.layer." if "." in found[0] else "encoder-layer_"
