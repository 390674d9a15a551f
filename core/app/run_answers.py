"""What a run's report shows of the student's answers on dev: which classes it confuses, where it errs, and how surely, and where
it and its teachers disagree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.tasks import Examples
from ..predictions import Predictions

_CONFUSED_CLASSES = 20
_LISTED_ERRORS = 20
_BINS = 5
_LONGEST_TEXT = 600
_LISTED_CLASSES = 200


def answers_content(found: Predictions, examples: Examples | None) -> dict[str, Any]:
    """Tables for the page. Without `examples`, whose texts are those of the predictions, nothing that needs texts."""
    names, labels = found.label_names, found.labels
    content: dict[str, Any] = {"kind": found.kind.page, "examples": len(labels), "confusion": None}
    content |= {"classes": [], "lengths": [], "errors": []}
    content["teachers"] = [_beside_teacher(found, name, logits, examples) for name, logits in found.teachers.items()]
    if names is not None and found.kind.has_classes and found.kind.answers(found.logits) is not None:
        content["classes"] = _classes(found)
        if _classes_of(found) is not None and len(names) <= _CONFUSED_CLASSES:
            content["confusion"] = _confusion(found)
    if examples is not None and len(examples.texts) == len(labels):
        content["lengths"], content["errors"] = _lengths(found, examples), _errors(found, examples)
    return content


def _confusion(found: Predictions) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix

    predicted = _classes_of(found)
    matrix = confusion_matrix(found.labels, predicted, labels=list(range(len(found.label_names))))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = [
        {"name": name, "cells": [{"count": int(n), "share": float(s)} for n, s in zip(counts, row)], "total": int(counts.sum())}
        for name, counts, row in zip(found.label_names, matrix, shares, strict=True)
    ]
    return {"names": list(found.label_names), "rows": rows, "totals": matrix.sum(axis=0).tolist()}


def _classes(found: Predictions) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of examples of each class, the most frequent first where there are too many to list."""
    from sklearn.metrics import precision_recall_fscore_support

    if _classes_of(found) is not None:
        true, predicted, labels = found.labels, _classes_of(found), list(range(len(found.label_names)))
    else:
        true, predicted, labels = found.labels > 0.5, found.kind.answers(found.logits), None
    columns = precision_recall_fscore_support(true, predicted, labels=labels, average=None, zero_division=0)
    keys = ("precision", "recall", "f1", "examples")
    rows = [
        {"name": name} | {key: float(column[index]) for key, column in zip(keys, columns)}
        for index, name in enumerate(found.label_names)
    ]
    return rows if len(rows) <= _LISTED_CLASSES else sorted(rows, key=lambda row: -row["examples"])[:_LISTED_CLASSES]


def _classes_of(found: Predictions) -> np.ndarray | None:
    """(examples,) the number of the class that is answered; None where that is not one class."""
    answers = found.kind.answers(found.logits)
    return answers[:, 0] if answers is not None and found.labels.ndim == 1 and answers.shape[1] == 1 else None


def _errors(found: Predictions, examples: Examples) -> list[dict[str, Any]]:
    wrong, surely = found.kind.errors(found.logits, found.labels)
    order = np.argsort(np.where(wrong, -surely, np.inf), kind="stable")[: min(_LISTED_ERRORS, int(wrong.sum()))]
    return [
        {
            **_texts(examples, row),
            "true": _true(found, row) if examples.asked is None else " / ".join(examples.asked.golds[row]) or "no answer",
            "predicted": _answer(found, found.logits[row]),
            "surely": float(surely[row]),
        }
        for row in order
    ]


def _answer(found: Predictions, logits: np.ndarray) -> str:
    return found.kind.answer_text(found.label_names or (), logits)


def _true(found: Predictions, row: int) -> str:
    return found.kind.target_text(found.label_names or (), found.labels[row])


def _beside_teacher(found: Predictions, name: str, logits: np.ndarray, examples: Examples | None) -> dict[str, Any]:
    """How often student and teacher answer alike and are right, and the examples on which they are farthest apart."""
    teacher = dataclasses.replace(found, logits=logits, teachers={})
    own, other = _values(found), _values(teacher)
    distance = found.kind.distance(own, other)
    title = name if name == "teacher" else f"teacher {name}"
    content: dict[str, Any] = {"title": title, "counts": None, "rows": []}
    student_right, teacher_right = found.right, teacher.right
    if student_right is None:
        differs = np.ones(len(own), bool)
        content["mean_distance"] = float(distance.mean())
    else:
        differs = found.kind.differs(found.logits, logits, 0.0)
        content["counts"] = {
            "alike": int((~differs).sum()),
            "both": int((student_right & teacher_right).sum()),
            "student": int((student_right & ~teacher_right).sum()),
            "teacher": int((~student_right & teacher_right).sum()),
            "neither": int((~student_right & ~teacher_right).sum()),
        }
    if examples is not None and len(examples.texts) == len(own):
        order = np.argsort(np.where(differs, -distance, np.inf), kind="stable")[: min(_LISTED_ERRORS, int(differs.sum()))]
        content["rows"] = [
            {
                **_texts(examples, row),
                "true": _true(found, row),
                "teacher": _answer(found, logits[row]),
                "student": _answer(found, found.logits[row]),
                "teacher_share": found.kind.share(other[row]),
                "student_share": found.kind.share(own[row]),
                "distance": float(distance[row]),
            }
            for row in order
        ]
    return content


def answers_beside(found: Sequence[Predictions], rows: np.ndarray, examples: Examples | None) -> list[dict[str, Any]]:
    """Of the examples `rows` (counted from 0) those on which several models are farthest apart: text, label and each model's
    answer. Without `examples` there are no texts."""
    values = np.stack([_values(each) for each in found])[:, rows]  # (models, rows, outputs)
    distance = (values.max(axis=0) - values.min(axis=0)).max(axis=1)
    listed = rows[np.argsort(-distance, kind="stable")[:_LISTED_ERRORS]]
    nothing = {"line": None, "text": None, "pair": None}
    return [
        {
            **(nothing if examples is None or not len(examples.texts) else _texts(examples, row)),
            "row": int(row) + 1,
            "true": _true(found[0], row),
            "answers": [
                {"answer": _answer(each, each.logits[row]), "share": each.kind.share(_values_of(each, row))} for each in found
            ],
        }
        for row in listed
    ]


def _values_of(found: Predictions, row: int) -> np.ndarray:
    return _values(dataclasses.replace(found, logits=found.logits[row : row + 1]))[0]


def _values(found: Predictions) -> np.ndarray:
    """Probabilities (examples, classes), of a regression the scores (examples, 1), in float64."""
    return found.kind.values(found.logits)


def _texts(examples: Examples, row: int) -> dict[str, Any]:
    pair = None if examples.pairs is None else _cut(examples.pairs[row])
    return {"line": int(examples.line_numbers[row]), "text": _cut(examples.texts[row]), "pair": pair}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} … ({len(text):,} characters)"


def _lengths(found: Predictions, examples: Examples) -> list[dict[str, Any]]:
    """The share of right answers (of a regression, the mean distance) by the characters of a text, in groups of like size."""
    pairs = examples.pairs or [""] * len(examples.texts)
    lengths = np.array([len(text) + len(pair) for text, pair in zip(examples.texts, pairs, strict=True)])
    wrong, surely = found.kind.errors(found.logits, found.labels)
    values = surely if found.right is None else ~wrong
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _BINS + 1)[1:-1], method="lower"))
    group = np.searchsorted(edges, lengths, side="left")
    rows = []
    for index in np.unique(group):
        own = group == index
        low, high = int(lengths[own].min()), int(lengths[own].max())
        rows.append({"low": low, "high": high, "examples": int(own.sum()), "value": float(values[own].mean())})
    return rows
