"""What a student keeps of a teacher that is a file of answers: how often it says the same, and how often both are right, by the
file's classes and by how sure the file is. Of words with labels: `kept_tags`, of questions: `kept_places`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.taught import Taught
from ..task_data import TaskData
from .kept_groups import about_group, by_confidence
from .kept_places import answers_right, kept_questions, question_scores
from .kept_tags import kept_words, word_scores


def file_scores(data: TaskData, name: str) -> dict[str, float]:
    """The metrics of a file on those texts of dev that have a label of their own and an answer."""
    examples = data.examples.get("dev")
    if examples is None or examples.labels is None:
        return {}
    taught = examples.taught[name]
    if data.spec.kind.of_spans:
        return question_scores(data.spec, taught, examples)
    if data.spec.kind.per_token:
        return word_scores(data.spec, taught, taught.logits, examples.labels)
    rows = taught.answered & taught.gold
    if not rows.any():
        return {}
    return data.spec.kind.score(data.spec.metrics, taught.logits[rows], examples.labels[rows], data.spec.own_metrics)


def file_answers(data: TaskData, name: str) -> np.ndarray | None:
    """A file's answers to dev in place of a model's logits; None where it lacks some, or where they are the labels."""
    taught = None if (examples := data.examples.get("dev")) is None else examples.taught.get(name)
    if taught is None or not (taught.answered & taught.gold).all():
        return None
    return answers_right(data.spec, taught, examples) if data.spec.kind.of_spans else taught.logits


def kept_answers(data: TaskData, name: str, logits: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    """What result.json says of a student's `logits` on dev (examples, outputs) beside a file's answers, on those texts that have
    one: `agreement`, and of texts with a label of their own `teacher` and `student` (the first metric of the task) and
    `retention`, the second by the first. Both arrays are as `Scored` has them."""
    taught = data.examples["dev"].taught[name]
    if data.spec.kind.of_spans:
        return kept_questions(data.spec, taught, data.examples["dev"], logits, said)
    if data.spec.kind.per_token:
        return kept_words(data.spec, taught, logits, data.examples["dev"].labels)
    found = {"texts": int(taught.answered.sum())}
    return found | (_compared(data, taught, logits) if found["texts"] else {})


def _compared(data: TaskData, taught: Taught, logits: np.ndarray) -> dict[str, Any]:
    spec, targets, rows = data.spec, data.examples["dev"].labels, np.flatnonzero(taught.answered)
    kind = spec.kind
    own, other = logits[rows], taught.logits[rows]
    answers = kind.answers(other)
    found: dict[str, Any] = {"mean_distance": float(kind.distance(kind.values(own), kind.values(other)).mean())}
    gold = taught.gold[rows]
    if gold.any():
        main = spec.metrics[0]
        teacher, student = (
            kind.score((main,), each[gold], targets[rows][gold], spec.own_metrics)[main] for each in (other, own)
        )
        found |= {"metric": main, "labelled": int(gold.sum()), "teacher": teacher, "student": student}
        found["retention"] = student / teacher if teacher else None
    if answers is None:
        return found
    same = ~kind.differs(own, other, 0.0)
    found["agreement"] = float(same.mean())
    teacher_right, student_right = (kind.right(each, targets[rows]) for each in (other, own))

    def group(chosen: np.ndarray) -> dict[str, Any]:
        return about_group(chosen, same, gold, teacher_right, student_right)

    if kind.one_class:
        said = answers[:, 0]
        found["by_class"] = [{"class": spec.label_names[place], **group(said == place)} for place in np.unique(said)]
        unanswered = np.flatnonzero(~taught.answered & taught.gold)
        if len(unanswered):
            right = kind.right(logits[unanswered], targets[unanswered])
            found["unanswered"] = {"texts": len(unanswered), "student_right": float(right.mean())}
    return found | by_confidence(taught.confidence[rows], group)
