"""A file of answers joined to texts whose words have labels: the words that it covers, what is learned of them, and what is told
of it. The file is read and its rows are found as for whole texts (`labelled_file`, `found_rows`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.tagged_files import word_places
from ..data.tagged_mixing import counts_of
from ..data.tasks import Examples
from ..data.taught import TaughtWords, nothing_known
from ..errors import DataError
from ..shown import shown
from .found_rows import Join, about_file, file_lines, joined, lines_of, nothing_joined, place_of, rows_of
from .labelled_file import Answers
from .said import BadRecord
from .word_answers import Notes


def with_word_answers(join: Join, examples: Mapping[str, Examples], name: str) -> dict[str, Examples]:
    """The examples by split with the answers of a file as `taught[name]`, and in train what each word counts: nothing without an
    answer. Raises DataError."""
    notes = Notes()
    taught = {split: _taught(join, own, split, notes) for split, own in examples.items()}
    if not any(own.answered.any() or own.abstained.any() for own in taught.values()):
        raise DataError(nothing_joined(join, examples))
    unasked = sum(not answers.found for answers in join.file.by_key.values())
    told, found = [*file_lines(join, unasked), *notes.told(join.file.path.name)], {}
    for split, own in examples.items():
        told.append(_coverage(split, taught[split]))
        own, answers = _answered_only(join, own, taught[split], told) if split == "train" else (own, taught[split])
        own, answers = _labelled(join, own, answers, split, told)
        own = _counted(join, own, answers, told) if split == "train" else own
        found[split] = own, answers
    about = about_file(join.file, unasked, {split: _of_split(own) for split, own in taught.items()})
    return {
        split: replace(own, taught={**own.taught, name: replace(answers, about=about, told=tuple(told))})
        for split, (own, answers) in found.items()
    }


def _taught(join: Join, examples: Examples, split: str, notes: Notes) -> TaughtWords:
    """What the file says of the words of a split."""
    spaced = examples.by_spaces.tolist()
    counts = [len(word_places(text, by_spaces)) for text, by_spaces in zip(examples.texts, spaced)]
    firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    words, outputs = int(firsts[-1]), len(join.spec.labels)
    gold = np.zeros(words, bool)
    if examples.labels is not None:
        gold = np.concatenate([row[:count] >= 0 for row, count in zip(examples.labels, counts)])
    found = TaughtWords(
        logits=np.zeros((words, outputs), np.float32),
        **nothing_known(words, len(examples)),
        gold=gold,
        firsts=firsts,
    )
    for row, answers in joined(join, examples, split, found.cost):
        own = slice(firsts[row], firsts[row + 1])
        found.abstained[own] = True
        if answers.values and counts[row]:
            _fill(join, found, own, answers, examples.texts[row], spaced[row], notes)
    shares = join.spec.kind.values(found.logits).max(axis=1, initial=0)
    rows = found.soft & np.isnan(found.confidence)
    found.confidence[rows] = shares[rows]
    return found


def _fill(
    join: Join, found: TaughtWords, own: slice, answers: Answers, text: str, by_spaces: bool, notes: Notes
) -> None:
    """The answers to a text, at its words. Raises DataError, which names the line of one that does not fit it."""
    votes, known = [], []
    for read in answers.values:
        if read.are_logits != answers.values[0].are_logits:
            raise DataError(f"{join.file.path}:{read.line}: one row of the same text has logits, another one has none")
        try:
            values, answered = join.file.classes.of_words(read, text, by_spaces, notes)
        except BadRecord as error:
            raise DataError(f"{join.file.path}:{read.line}: {error}") from None
        votes.append(values)
        known.append(answered)
    values, known = np.array(votes), np.array(known)  # (votes, words, outputs), (votes, words)
    some, count = known.any(axis=0), np.maximum(known.sum(axis=0), 1)
    mean = (values * known[:, :, None]).sum(axis=0) / count[:, None]
    same = (values.argmax(axis=2) == mean.argmax(axis=1)) & known
    found.answered[own], found.abstained[own] = some, ~some
    found.agreement[own] = np.where(some, same.sum(axis=0) / count, 0)
    found.logits[own][some] = join.file.classes.logits([mean[some]], answers.values[0].are_logits)
    distributions = np.array([read.values is not None for read in answers.values])
    found.soft[own] = some & ((distributions[:, None] & known).any(axis=0) | (found.agreement[own] < 1))
    if answers.confidences:
        found.confidence[own] = np.mean(answers.confidences)


def _answered_only(
    join: Join, examples: Examples, taught: TaughtWords, told: list[str]
) -> tuple[Examples, TaughtWords]:
    """The texts of train of which a word has an answer."""
    lacking, silent = ~taught.whole(taught.answered), ~_some(taught, taught.answered)
    without = np.flatnonzero(lacking & (np.diff(taught.firsts) > 0))
    if not len(without):
        return examples, taught
    count, words = len(without), int((~taught.answered).sum())
    file = join.file.path.name
    what = f"{count:,} of {len(examples):,} texts of train have words without an answer in {file}, {words:,} together"
    if join.section.unanswered == "error":
        first = int(np.flatnonzero(~taught.answered)[0])
        row = int(taught.owners[first])
        start, end = word_places(examples.texts[row], bool(examples.by_spaces[row]))[first - taught.firsts[row]]
        word = shown(examples.texts[row][start:end])
        raise DataError(
            f"{place_of(examples, row)}: {what}, the first of them {word}; {join.key}.unanswered: leave_out trains without them"
        )
    if not taught.answered.any():
        raise DataError(f"{place_of(examples, int(without[0]))}: {what}: nothing is left to train on")
    told.append(f"train: {words:,} words without an answer are left out, in line {lines_of(examples, without)}")
    rows = np.flatnonzero(~silent)
    return rows_of(examples, rows), taught.of(rows)


def _some(taught: TaughtWords, of_words: np.ndarray) -> np.ndarray:
    """(examples,) booleans: whether what is asked (words,) is so of a word of a text."""
    found = np.zeros(len(taught.firsts) - 1, bool)
    found[taught.owners[of_words]] = True
    return found


def _labelled(
    join: Join, examples: Examples, taught: TaughtWords, split: str, told: list[str]
) -> tuple[Examples, TaughtWords]:
    """The examples with answers as labels, where the recipe wants that. Labels that dev has stay: they are what everything is
    measured by; without any, dev has those texts of which all words have an answer."""
    asked, own = join.section.as_labels, examples.labels
    if own is None and split != "train":
        if asked == "never":
            way = f"{join.key}.as_labels: where_missing scores the student by the file's answers"
            raise DataError(f"{examples.source}: has no labels, so that nothing can be scored on it; {way}")
        rows = np.flatnonzero(taught.whole(taught.answered))
        if not len(rows):
            raise DataError(f"{examples.source}: has no labels, and {join.file.path.name} answers to no text of it in full")
        told.append(f"{split}: has no labels; scores are of how far the student says what the file says, on {len(rows):,} texts")
        examples, taught = rows_of(examples, rows), taught.of(rows)
    wanted = taught.answered & (~taught.gold | (asked == "always" and split == "train")) & (asked != "never")
    if not wanted.any():
        return examples, taught
    answers = np.where(wanted, taught.logits.argmax(axis=1), -1).astype(np.int16)
    answers = taught.in_texts(answers, -1)
    labels = answers
    if own is not None and examples.labels is not None:
        labels = np.full_like(answers, -1)
        labels[:, : examples.labels.shape[1]] = examples.labels[:, : labels.shape[1]]
        labels = np.where(taught.in_texts(wanted), answers, labels)
    if split == "train":
        told.append(f"{split}: {int(wanted.sum()):,} of {len(wanted):,} labels of words are the file's answers")
    return replace(examples, labels=labels), taught


def _counted(join: Join, examples: Examples, taught: TaughtWords, told: list[str]) -> Examples:
    """The examples with what each word counts: 1 with an answer, or how sure that is."""
    by, counts = join.section.weigh_by, taught.answered.astype(np.float32)
    if by is not None:
        factors = taught.agreement if by == "agreement" else taught.confidence
        known = factors[taught.answered]
        if by == "agreement" and (known == 1).all():
            raise DataError(f"{join.key}.weigh_by: agreement, but no word of train has votes that differ")
        if np.isnan(known).any():
            row = int(taught.owners[taught.answered & np.isnan(factors)][0])
            told_by = f"{join.file.path.name} tells no confidence of the text in line {examples.line_numbers[row]}"
            raise DataError(f"{join.key}.weigh_by: confidence, but {told_by} of {examples.source}")
        known = np.maximum(known, join.section.floor)
        told.append(f"train: words count {known.min():.3g} to {known.max():.3g}, {known.mean():.3g} on average, by {by}")
        counts = np.where(taught.answered, np.maximum(np.nan_to_num(factors), join.section.floor), 0).astype(np.float32)
    # A word that has no label of its own counts too, since the file says what it is.
    own = counts_of(examples) if examples.word_counts is not None else counts_of(replace(examples, labels=None))
    counts = taught.in_texts(counts)
    return replace(examples, word_counts=counts * own[:, : counts.shape[1]])


def _coverage(split: str, taught: TaughtWords) -> str:
    texts, count = int(_some(taught, taught.answered).sum()), len(taught.firsts) - 1
    text = f"{split}: {texts:,} of {count:,} texts have an answer in the file"
    silent = int((~taught.answered & _some(taught, taught.answered)[taught.owners]).sum())
    if silent:
        text += f", but {silent:,} of their words"
    if none := int((taught.whole(taught.abstained)).sum()):
        text += f", to {none:,} it has none"
    if alone := int((taught.answered & ~taught.soft).sum()):
        text += f"; {alone:,} words have a label alone, without a distribution"
    return text


def _of_split(taught: TaughtWords) -> dict[str, Any]:
    """What result.json says of a split."""
    return {
        "texts": len(taught.firsts) - 1,
        "answered": int(_some(taught, taught.answered).sum()),
        "abstained": int(taught.whole(taught.abstained).sum()),
        "words": len(taught.answered),
        "words_answered": int(taught.answered.sum()),
        "with_distribution": int(taught.soft.sum()),
        "mean_agreement": float(taught.agreement[taught.answered].mean()) if taught.answered.any() else None,
    }
