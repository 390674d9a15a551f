"""Token labels: every word of a text has a label, as names (NER), parts of speech and word boundaries have.

`targets` (examples, most words) int16 are numbers of labels, -1 behind the last word. `logits` (words, outputs) are those of all
words of a split, one example's behind another's. Of labels in BIO, the score is that of whole spans as seqeval counts them: a
span is right where its words and its type are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..data.tag_schemes import Span, is_bio, may_follow, parts_of, spans_of
from ..data.tagged_files import word_places
from ..data.tagged_tokens import tagged_table
from ..metrics import ENTITY_METRICS, WORD_ACCURACY, check_finite
from ..models.answer_heads import TOKENS
from .asked import Asked
from .one_class import OneClass


class TokenLabels(OneClass):
    """A label for each word, which is one of several classes."""

    name, title, described = "tokens", "token classification", "one with a label for each token"
    head = TOKENS
    what = "words"
    problem_type = None
    per_token = True
    default_metrics = (ENTITY_METRICS[0], *ENTITY_METRICS[1:], WORD_ACCURACY)
    target_type = np.dtype("<i2")

    values_code = "best = logits.argmax(axis=1)"
    shown_code = "for token, number in zip(tokens.tokens, best):\n    print(token, labels[str(number)])"

    def metrics_of(self, labels):
        """The names of all metrics of a task with these labels, the usual ones first."""
        if not is_bio(labels):
            return (WORD_ACCURACY,)
        types = sorted({parts_of(label)[1] for label in labels} - {""})
        return (*self.default_metrics, *(f"{name}/{each}" for each in types for name in ENTITY_METRICS))

    def counts(self, targets, classes):
        return np.bincount(targets[targets >= 0], minlength=classes)

    def labelled(self, targets):
        return int((targets >= 0).sum())

    def digest(self, labels, targets):
        return targets

    def score(self, names, logits, targets, own, labels, constrained=False):
        check_finite(logits, "words")
        lengths = (targets >= 0).sum(axis=1)
        true = targets[targets >= 0]
        ends = np.cumsum(lengths)
        predicted = np.concatenate([decoded(part, labels, constrained) for part in np.split(logits, ends[:-1])])
        found: dict[str, float] = {}
        counted = span_counts(predicted, true, ends, labels) if any(name != WORD_ACCURACY for name in names) else {}
        for name in names:
            kind, _, of_type = name.partition("/")
            if kind == WORD_ACCURACY:
                found[name] = float((predicted == true).mean()) if len(true) else 0.0
            else:
                found[name] = _of_spans(kind, counted, of_type)
        return found


    def asked(self, tokenizer, texts, pairs, length, labels, task):
        """A text that is longer than `length` tokens is read in windows, as in training."""
        how = task.get("tokens") or {}
        constrained = bool(how.get("constrained"))
        table = tagged_table(texts, False, None, tokenizer, length, how.get("overlap"), False)
        places = [word_places(text, False) for text in texts]
        firsts = np.cumsum([0, *map(len, places)])
        rows = [np.flatnonzero(table.examples == number) for number in range(len(texts))]

        def answer(number, logits):
            own = np.zeros((len(places[number]), len(labels)), np.float32)
            for row, found in zip(rows[number], logits, strict=True):
                words = table.words[table.offsets[row] : table.offsets[row + 1]]
                own[words[words >= 0] - firsts[number]] = found[: len(words)][words >= 0]
            return {"spans": found_spans(texts[number], places[number], own, labels, constrained)}

        def answers(numbers, logits):
            return [answer(number, own) for number, own in zip(numbers, logits, strict=True)]

        return Asked(table, table.examples, np.zeros(len(texts), bool), answers)


def decoded(logits: np.ndarray, labels: tuple[str, ...], constrained: bool) -> np.ndarray:
    """The labels (words,) of one text by its logits (words, outputs): the most probable of each word or, `constrained`, the most
    probable sequence without an I that goes on with nothing (Viterbi over log softmax)."""
    if not constrained or not len(logits) or not is_bio(labels):
        return logits.argmax(axis=1)
    scores = logits.astype(np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    allowed = np.array([[0.0 if may_follow(before, label) else -np.inf for label in labels] for before in labels])
    best = scores[0] + np.array([0.0 if may_follow(None, label) else -np.inf for label in labels])
    back = np.zeros(scores.shape, np.int64)
    for word in range(1, len(scores)):
        ways = best[:, None] + allowed
        back[word] = ways.argmax(axis=0)
        best = ways.max(axis=0) + scores[word]
    found = np.zeros(len(scores), np.int64)
    found[-1] = best.argmax()
    for word in range(len(scores) - 1, 0, -1):
        found[word - 1] = back[word, found[word]]
    return found


def found_spans(
    text: str, places: Sequence[tuple[int, int]], logits: np.ndarray, labels: Sequence[str], constrained: bool
) -> list[dict[str, Any]]:
    """The spans of a text whose words are at `places`, by the logits (words, outputs); of plain labels, each word is one."""
    if not len(logits):
        return []
    answers, shares = decoded(logits, labels, constrained), TokenLabels().values(logits)
    tags = [labels[answer] for answer in answers]
    plain = not is_bio(labels)
    spans = [Span(word, word + 1, tag) for word, tag in enumerate(tags)] if plain else spans_of(tags)
    found = []
    for span in spans:
        start, end = places[span.first][0], places[span.end - 1][1]
        words = np.arange(span.first, span.end)
        score = float(shares[words, answers[words]].mean())
        found.append({"start": start, "end": end, "label": span.type, "text": text[start:end], "score": score})
    return found


def counted_spans(
    predicted: np.ndarray, true: np.ndarray, ends: np.ndarray, labels: tuple[str, ...]
) -> Iterator[dict[str, set[Span]]]:
    """The spans of one text after another, by `right`, `predicted` and `true`. Labels (words,) of texts that end at `ends`."""
    names = np.array(labels, object)
    for own, other in zip(np.split(names[predicted], ends[:-1]), np.split(names[true], ends[:-1])):
        spans, expected = set(spans_of(own.tolist())), set(spans_of(other.tolist()))
        yield {"right": spans & expected, "predicted": spans, "true": expected}


def span_counts(predicted: np.ndarray, true: np.ndarray, ends: np.ndarray, labels: tuple[str, ...]) -> dict[str, Counter]:
    """`right`, `predicted` and `true` -> how many spans of each type. Labels (words,) of texts that end at `ends`."""
    counts = {"right": Counter(), "predicted": Counter(), "true": Counter()}
    for text in counted_spans(predicted, true, ends, labels):
        for key, found in text.items():
            counts[key].update(span.type for span in found)
    return counts


def _of_spans(kind: str, counted: dict[str, Counter], of_type: str) -> float:
    right, predicted, true = (
        counted[key][of_type] if of_type else sum(counted[key].values()) for key in ("right", "predicted", "true")
    )
    # F1 is 2 TP / (2 TP + FP + FN).
    below = {ENTITY_METRICS[0]: (predicted + true) / 2, ENTITY_METRICS[1]: predicted, ENTITY_METRICS[2]: true}[kind]
    return float(right / below) if below else 0.0
