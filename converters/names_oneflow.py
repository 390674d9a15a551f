"""The names of OneFlow checkpoints before 0.5, as Oneflow-Model-Compression and OneFlow's BERT benchmark have them.

They are Google's with dashes for slashes and `weight` for a kernel, which stays (in, out). The classifier is
`classification-output_weights` (out, in), and so is the map `fit_dense`. A student's names start with `student-`, and a
snapshot of its training holds its teacher as well. OneFlow 0.9 has the canonical names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..core.models.known_families import of_families
from .names_tensorflow import drop_added, google_rules
from .rules import Rule, Spelling, Table

_STUDENT = "student-"
_CLASSIFIER = re.compile(r"^(?:classification-output[-_]|output_(?:weight|bia)-output_)(weight|bias)s?$")
"""The second as `convert_tf_ckpt_to_of.py` makes it of Google's `output_weights`, whose name has no parts."""

ENDS = frozenset("weight output_weight output_weights output_bias".split())


@of_families
def table(family: str) -> Table:
    """The rules of a family."""
    return Table(map(_rule, google_rules(family)))


def clean(name: str) -> str:
    """A student's tensors have their teacher's names after `student-`; `settle` tells which of them are read."""
    return name.removeprefix(_STUDENT)


def spelled(name: str, kind: str) -> str:
    """A name of a file, cleaned and without its prefix, as the rules have it."""
    found = _CLASSIFIER.match(name)
    return f"classification-output_{'weights' if found[1] == 'weight' else 'bias'}" if found else name


def settle(spelling: Spelling, kind: str, config: Mapping[str, Any]) -> None:
    """Of a student and its teacher in one snapshot the student is read."""
    students = {name for source, name in spelling.names.items() if source.startswith(_STUDENT)}
    if students:
        for source, name in list(spelling.names.items()):
            is_model = table(kind).canonical(name) is not None and not name.startswith("fit_dense-")
            if not source.startswith(_STUDENT) and (is_model or name in students):
                del spelling.names[source]
                spelling.dropped[source] = "of the teacher, whose student is in the same checkpoint"
        spelling.notes.append(f"the student is read, whose names start with '{_STUDENT}'")
    if kind == "distilbert":
        drop_added(spelling)


def _rule(google: Rule) -> Rule:
    name = re.sub("/kernel$", "/weight", google.foreign).replace("/", "-")
    if name in ("output_weights", "output_bias"):
        name = f"classification-{name}"
    return Rule(google.canonical, name, google.transpose and google.canonical != "fit_dense.weight")
