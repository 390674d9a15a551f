"""What the terms of a recipe's objective may ask of its task and models, from what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .checkpoint import Model
from .data.tasks import Examples, TaskSpec, label_counts, target_range
from .kinds.known_kinds import ONE_CLASS
from .losses.base import AnswersInFile, TermContext


def term_context(
    spec: TaskSpec | None,
    student: Model | None = None,
    teachers: Mapping[str, Model] | None = None,
    examples: Mapping[str, Examples] | None = None,
    files: Iterable[str] = (),
    rerankers: frozenset[str] = frozenset(),
) -> TermContext:
    """What terms may ask; a task that is not known has two classes. Labels are counted where there are `examples`; `files` are
    the teachers that are files of answers, `rerankers` those that score pairs in place of embedding texts."""
    kind, outputs = (ONE_CLASS, 2) if spec is None else (spec.kind, spec.kind.outputs(spec.labels))
    embedded, ranked = (None, None) if spec is None else (spec.embedded, spec.ranked)
    train = None if not examples else examples["train"]
    counts, labelled = label_counts(kind, train, outputs) if spec is not None and train else (None, None)
    return TermContext(
        outputs=outputs,
        kind=kind,
        student=None if student is None else student.config,
        teachers={
            **{name: teacher.config for name, teacher in (teachers or {}).items()},
            **{name: AnswersInFile() for name in files},
        },
        files=frozenset(files),
        rerankers=rerankers,
        labels=None if spec is None else spec.label_names,
        label_counts=counts,
        labelled=labelled,
        members=1 if embedded is None and ranked is None else ranked.most if embedded is None else embedded.members,
        scored=embedded is not None and embedded.examples == "scored" or ranked is not None and ranked.labelled,
        taught=bool(ranked.teacher_scores if ranked is not None else embedded is not None and embedded.teacher_scores),
        target_range=None if ranked is None or train is None else target_range(train),
    )
