"""What a student keeps of a file of answers to questions: how many are the same, how many words they share, and how far those of
both are right."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..answer_scores import scores_of, which_scores
from ..data.task_specs import TaskSpec
from ..data.tasks import Examples
from ..data.taught_answers import TaughtAnswers
from ..metrics import ANSWER_METRICS
from .kept_groups import about_group, by_confidence
from .question_rows import said_texts


def answers_right(spec: TaskSpec, taught: TaughtAnswers, examples: Examples) -> np.ndarray:
    """(questions, 2) float32: exact match and F1 of the file's answers with those that are right, 0 where it has none."""
    return _scores(spec, said_texts(examples.pairs, taught.best), examples.asked.golds) * taught.answered[:, None]


def _scores(spec: TaskSpec, said: list[tuple[str, ...]], golds: Any) -> np.ndarray:
    """(questions, 2) float32."""
    which = which_scores(golds) if spec.answering.scores == "auto" else spec.answering.scores
    score = scores_of(which, spec.answering.unanswerable)
    found = [score(own[0] if own else "", right) for own, right in zip(said, golds, strict=True)]
    return np.array(found, np.float32).reshape(-1, 2)


def question_scores(spec: TaskSpec, taught: TaughtAnswers, examples: Examples) -> dict[str, float]:
    """The exact match and F1 of the file on those questions of dev that have answers of their own and one of the file."""
    rows = taught.answered & taught.gold
    scores = answers_right(spec, taught, examples)[rows].astype(np.float64)
    return dict(zip(ANSWER_METRICS, scores.mean(axis=0).tolist())) if rows.any() else {}


def kept_questions(
    spec: TaskSpec, taught: TaughtAnswers, examples: Examples, scores: np.ndarray, said: np.ndarray
) -> dict[str, Any]:
    """What result.json says of a student's answers on dev, at `said` (questions, 2) in their contexts, beside a file's, on those
    questions to which it has one: `agreement`, the share of the same answers, as exact match takes them; `spans`, exact match and
    F1 with the file's in place of the right ones; and of questions with answers of their own, of which the student's `scores` are
    (questions, 2), `teacher`, `student` and `retention` by exact match."""
    rows = np.flatnonzero(taught.answered)
    found: dict[str, Any] = {"texts": len(rows), "questions": len(rows)}
    if not len(rows):
        return found
    texts = said_texts(examples.pairs, said)
    same = _scores(spec, texts, said_texts(examples.pairs, taught.best))[rows].astype(np.float64)
    found |= {"agreement": float(same[:, 0].mean()), "spans": dict(zip(ANSWER_METRICS, same.mean(axis=0).tolist()))}
    gold, right = taught.gold[rows], answers_right(spec, taught, examples)[rows].astype(np.float64)
    own = scores[rows].astype(np.float64)
    if gold.any():
        teacher, student = (float(each[gold, 0].mean()) for each in (right, own))
        found |= {"metric": ANSWER_METRICS[0], "labelled": int(gold.sum()), "teacher": teacher, "student": student}
        found["retention"] = student / teacher if teacher else None

    def group(chosen: np.ndarray) -> dict[str, Any]:
        return about_group(chosen, same[:, 0], gold, right[:, 0], own[:, 0])

    silent = ~taught.answered & taught.gold
    if silent.any():
        found["unanswered"] = {"texts": int(silent.sum()), "student_right": float(scores[silent, 0].mean())}
    return found | by_confidence(taught.confidence[rows], group)
