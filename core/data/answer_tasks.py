"""A task of questions whose answers are parts of a text: which files, which scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError, did_you_mean
from ..kinds.kind import Kind
from ..metrics import MORE_UNANSWERABLE_METRICS
from .answer_files import FILES
from .answer_format import AnswerFormat
from .task_definitions import TaskSection, check_folder, splits_of_names
from .task_specs import TaskSpec

_OFFICIAL = ("{}-v1.1.json", "{}-v2.0.json", "cmrc2018_{}.json")
"""What the files of SQuAD and CMRC 2018 are called."""


@dataclass(frozen=True)
class Asked:
    """What the answers to the questions of a split are compared with, in their order."""

    ids: tuple[str, ...]
    golds: tuple[tuple[str, ...], ...]
    """The right answers to each; none where the context does not tell."""

    def of(self, rows: np.ndarray) -> Asked:
        """Those of some questions."""
        return Asked(tuple(self.ids[row] for row in rows), tuple(self.golds[row] for row in rows))


def answers_task(section: TaskSection, kind: Kind) -> TaskSpec:
    """The task that a recipe means. Raises DataError."""
    check_folder(section.data)
    own = section.answers
    given = (section.text or "question", section.text_pair or "context", section.label or "answers")
    how = {} if own is None else own.model_dump(exclude={"misplaced"}) | {"nearest": own.misplaced == "nearest"}
    format = AnswerFormat(*given, **how)
    splits = splits_of_names(section, (*(f"{{}}{end}" for end in FILES), *_OFFICIAL))
    known = kind.metrics_of(format.unanswerable)
    usual = [name for name in known if name not in MORE_UNANSWERABLE_METRICS]
    wanted = usual if section.metrics is None else section.metrics
    for name in wanted:
        if name not in known:
            is_other = name in kind.metrics_of(True)
            others = "; task.answers.unanswerable: true has it" if is_other else ""
            hint = others or did_you_mean(name, known) or f"; expected one of {', '.join(known)}"
            raise DataError(f"task.metrics: '{name}' is no metric for this task{hint}")
    if not wanted:
        raise DataError(f"task.metrics: expected one or more of {', '.join(known)}, got none")
    names = (section.name, format.question, format.context, format.answers)
    return TaskSpec(*names, None, tuple(wanted), splits, kind=kind, answering=format)
