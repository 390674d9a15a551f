"""Sentences to examples: which stretches of a block's pieces make one, before anything is masked.

A stretch is whole sentences of one document in a row, as many as fit. Nothing is dropped: a sentence that does not fit begins the
next example, and one that is too long for any is cut between words. With next sentences a second stretch follows, the next one
or, half of the time and where there is none, one of another document (Devlin et al. 2019, section 3.1); the sentences whose place
it took come again in the next example. Only such a pair may be too long, and is then cut at random ends as Google's is.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

_SLACK = 16  # pieces that a cut may move back, to the beginning of a word


@dataclass(frozen=True)
class Stretches:
    """Examples: `a` and `b` (examples, 2) are the first piece and the one behind the last, of all pieces of the block; `b` is
    None without next sentences. `random_next` (examples,) is 1 where b is of another document."""

    a: np.ndarray
    b: np.ndarray | None
    random_next: np.ndarray


def cut_sentences(
    lengths: np.ndarray, documents: np.ndarray, begins: np.ndarray, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of `lengths` (sentences,) pieces, the first `documents[0]` of them in document 0 and so on, `begins` (pieces,)
    where words begin -> the ends between sentences (parts + 1,) once none is longer than `longest`, and those between documents
    as places in them (documents + 1,). Sentences and documents without a piece are left out."""
    document = np.repeat(np.arange(len(documents)), documents)[lengths > 0]
    lengths = lengths[lengths > 0]
    slack = min(_SLACK, longest // 4)
    parts = np.where(lengths <= longest, 1, -(-lengths // (longest - slack)))
    firsts = np.repeat(np.cumsum(parts) - parts, parts)
    place = np.arange(len(firsts)) - firsts
    starts = np.repeat(np.cumsum(lengths) - lengths, parts)
    cuts = starts + place * np.repeat(lengths, parts) // np.repeat(parts, parts)
    word = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
    moved = word[cuts] if len(cuts) else cuts
    cuts = np.where((place > 0) & (cuts - moved < slack), moved, cuts)
    ends = np.concatenate([cuts, [lengths.sum()]])
    counts = np.bincount(np.repeat(document, parts), minlength=len(documents))
    return ends, np.concatenate([[0], np.cumsum(counts[counts > 0])])


def pack_single(ends: list[int], documents: list[int], room: int, short: float, draws: random.Random) -> Stretches:
    """Examples of one stretch of at most `room` pieces; with probability `short` the limit is 2 to `room`."""
    found = []
    for first, last in zip(documents, documents[1:]):
        while first < last:
            behind = _fitting(ends, first, last, _limit(room, short, draws))
            found.append((ends[first], ends[behind]))
            first = behind
    return Stretches(np.array(found, np.int64).reshape(-1, 2), None, np.zeros(len(found), np.int64))


def pack_pairs(ends: list[int], documents: list[int], room: int, short: float, draws: random.Random) -> Stretches:
    """Examples of two stretches of at most `room` pieces together. A block with one document takes random ones from itself."""
    found: list[int] = []
    count = len(documents) - 1
    for document, (first, last) in enumerate(zip(documents, documents[1:])):
        while first < last:
            limit = _limit(room, short, draws)
            behind = _fitting(ends, first, last, limit)
            middle = behind if behind == first + 1 else first + 1 + int(draws.random() * (behind - first - 1))
            is_random = middle == behind or draws.random() < 0.5
            a, a_end = ends[first], ends[middle]
            if is_random:
                other = int(draws.random() * (count - 1)) if count > 1 else document
                other += count > 1 and other >= document
                start, end = documents[other], documents[other + 1]
                start += int(draws.random() * (end - start))
                b = ends[start]
                b_end = ends[min(end, bisect_left(ends, b + max(1, limit - (a_end - a)), start + 1, end + 1))]
                first = middle
            else:
                b, b_end = a_end, ends[behind]
                first = behind
            if a_end - a + b_end - b > room:
                a, a_end, b, b_end = _shortened(a, a_end, b, b_end, room, draws)
            found += (a, a_end, b, b_end, is_random)
    rows = np.array(found, np.int64).reshape(-1, 5)
    return Stretches(rows[:, :2], rows[:, 2:4], rows[:, 4])


def _limit(room: int, short: float, draws: random.Random) -> int:
    return 2 + int(draws.random() * (room - 1)) if short and draws.random() < short else room


def _fitting(ends: list[int], first: int, last: int, limit: int) -> int:
    """The place behind the sentences from `first` on that fit in `limit`: one at least."""
    return max(first + 1, bisect_right(ends, ends[first] + limit, first, last + 1) - 1)


def _shortened(a: int, a_end: int, b: int, b_end: int, room: int, draws: random.Random) -> tuple[int, int, int, int]:
    """Both stretches, once pieces of the longer one are taken until they fit, each from its front or its end at random."""
    sizes = (a_end - a, b_end - b)
    excess = sizes[0] + sizes[1] - room
    alone = min(excess, abs(sizes[0] - sizes[1]))  # until they are equal, after which they take turns, b first
    turns = excess - alone
    taken = [turns // 2, turns - turns // 2]
    taken[sizes[1] > sizes[0]] += alone
    front, behind = (draws.getrandbits(number).bit_count() if number else 0 for number in taken)
    return a + front, a_end - taken[0] + front, b + behind, b_end - taken[1] + behind
