"""What a student keeps of a file of answers to words: how many labels are the same, how far its spans are the file's, and how far
those of both are right."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.task_specs import TaskSpec
from ..data.taught import TaughtWords
from .kept_groups import by_confidence


def word_scores(spec: TaskSpec, taught: TaughtWords, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics of `logits` (words, outputs) on those texts of dev all whose words have a label of their own and an answer."""
    texts = taught.whole(taught.answered & taught.gold)
    return _score(spec, taught, texts, logits, labels) if texts.any() else {}


def _score(
    spec: TaskSpec, taught: TaughtWords, texts: np.ndarray, logits: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    own = logits[texts[taught.owners]]
    return spec.kind.score(spec.metrics, own, labels[texts], {}, spec.labels, spec.tagged.constrained)


def kept_words(spec: TaskSpec, taught: TaughtWords, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What result.json says of a student's `logits` on dev (words, outputs) beside a file's answers: `agreement`, the share of
    the words with the same label; `spans`, the metrics of the student on those texts of which all words have an answer, with the
    file's answers in place of labels; and of texts that have labels of their own `teacher`, `student` and `retention`, by the
    first metric of the task."""
    rows = np.flatnonzero(taught.answered)
    answered = np.zeros(len(taught.firsts) - 1, bool)
    answered[taught.owners[rows]] = True
    found: dict[str, Any] = {"texts": int(answered.sum()), "words": len(rows)}
    if not len(rows):
        return found
    kind, said = spec.kind, taught.logits.argmax(axis=1)
    found["mean_distance"] = float(kind.distance(kind.values(logits[rows]), kind.values(taught.logits[rows])).mean())
    same = logits.argmax(axis=1)[rows] == said[rows]
    found["agreement"] = float(same.mean())
    whole = taught.whole(taught.answered)
    if whole.any():
        found["spans"] = _score(spec, taught, whole, logits, taught.in_texts(said.astype(np.int16), -1))
    texts = taught.whole(taught.answered & taught.gold)
    if texts.any():
        main = spec.metrics[0]
        teacher, student = (_score(spec, taught, texts, each, labels)[main] for each in (taught.logits, logits))
        found |= {"metric": main, "labelled": int(texts.sum()), "teacher": teacher, "student": student}
        found["retention"] = student / teacher if teacher else None

    def group(chosen: np.ndarray) -> dict[str, Any]:
        return {"texts": int(chosen.sum()), "agreement": float(same[chosen].mean())}

    found["by_class"] = [{"class": spec.label_names[place], **group(said[rows] == place)} for place in np.unique(said[rows])]
    return found | by_confidence(taught.confidence[rows], group)
