"""The names of OneFlow checkpoints before 0.5, as Oneflow-Model-Compression and OneFlow's BERT benchmark have them.

They are Google's with dashes for slashes and `weight` for a kernel, which stays (in, out). The classifier is
`classification-output_weights` (out, in), and so is the map `fit_dense`. A student's names start with `student-`, and a
snapshot of its training holds its teacher as well. OneFlow 0.9 has the canonical names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from .names_tensorflow import drop_added, google_rules
from .rules import Rule, Spelling, Table, without_wrappers

_STUDENT = "student-"
_CLASSIFIER = re.compile(r"^classification-output[-_](weight|bias)s?$")


@cache
def table(family: str) -> Table:
    """The rules of a family."""
    return Table(map(_rule, google_rules(family)))


def spell(names: Iterable[str], family: str, config: Mapping[str, Any]) -> Spelling:
    """The names of a file as the rules have them."""
    names = list(names)
    spelling = without_wrappers({name: name for name in names if not name.startswith(_STUDENT)}, "-")
    students = {name.removeprefix(_STUDENT): None for name in names if name.startswith(_STUDENT)}
    spelling.names = {source: _spelled(name) for source, name in spelling.names.items()}
    if students:
        _leave_out_teacher(spelling, students, family)
        spelling.names |= {_STUDENT + name: _spelled(name) for name in students}
        spelling.notes = [f"the student is read, whose names start with '{_STUDENT}'"]
    if family == "distilbert":
        drop_added(spelling)
    return spelling


def _leave_out_teacher(spelling: Spelling, students: Mapping[str, None], family: str) -> None:
    for source, name in list(spelling.names.items()):
        is_model = table(family).canonical(name) is not None and not name.startswith("fit_dense-")
        if is_model or source in students:
            del spelling.names[source]
            spelling.dropped[source] = "of the teacher, whose student is in the same checkpoint"


def _spelled(name: str) -> str:
    found = _CLASSIFIER.match(name)
    return f"classification-output_{'weights' if found[1] == 'weight' else 'bias'}" if found else name


def _rule(google: Rule) -> Rule:
    name = re.sub("/kernel$", "/weight", google.foreign).replace("/", "-")
    if name in ("output_weights", "output_bias"):
        name = f"classification-{name}"
    return Rule(google.canonical, name, google.transpose and google.canonical != "fit_dense.weight")
