"""Texts whose words have labels as tokens: which token carries the label of which word, and texts that are longer than a model
takes in windows.

Each word is labelled once: at its first piece (or at all of its pieces), in the window where it is farthest from the ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .. import threads
from ..errors import DataError
from .panics import panics_told
from .tagged_files import word_places
from .token_table import TokenTable
from .unspaced_words import pieces_by_word, without_spaces

NOTHING = -1
USUAL_OVERLAP = 32
_AT_ONCE = 1024


def window_room(tokenizer, max_length: int) -> int:
    """How many tokens of a text a window of `max_length` tokens holds beside the special ones."""
    return max_length - sum(map(len, tokenizer.places.single))


def most_overlap(room: int) -> int:
    """How many of its `room` tokens a window may have in common with the next one: with more, some would label no word."""
    return room // 2


def tagged_table(
    texts: Sequence[str], by_spaces: bool | np.ndarray, targets: np.ndarray | None, tokenizer, max_length: int,
    overlap: int | None, all_pieces: bool, counts: np.ndarray | None = None,
) -> TokenTable:
    """The rows of texts, each in one or more windows that have `overlap` tokens in common (None: the usual number), at most half
    of a window's; `by_spaces` is of all or each of them. Of each token `words` says which word begins there, counted through all
    texts, and `targets` the label that is learned there; -1 is none. `targets` (texts, most words) are those of the words, and
    `counts`, likewise, what each word counts; None: 1 where it has a label."""
    before, behind = tokenizer.places.single
    room = window_room(tokenizer, max_length)
    if room < 2:
        raise DataError(f"max_length {max_length} leaves no room for the text, expected {max_length - room + 2} or more")
    overlap = min(USUAL_OVERLAP if overlap is None else overlap, most_overlap(room))
    ids: list[np.ndarray] = []
    words: list[np.ndarray] = []
    learned: list[np.ndarray] = []
    counted: list[np.ndarray] = []
    learned_words: list[np.ndarray] = []
    owners: list[int] = []
    total = 0
    for row, (pieces, word_of, count) in enumerate(_pieces(texts, by_spaces, tokenizer)):
        labels = None if targets is None else targets[row][:count]
        is_first = np.concatenate([[True], word_of[1:] != word_of[:-1]]) & (word_of >= 0) if len(word_of) else np.zeros(0, bool)
        for start, end, own in _windows(len(pieces), room, overlap):
            part, mine = word_of[start:end], own & (word_of[start:end] >= 0)
            begins = np.where(mine & is_first[start:end], part + total, NOTHING)
            taught = mine if all_pieces else mine & is_first[start:end]
            target = np.full(len(part), NOTHING)
            if labels is not None and count:
                target = np.where(taught, labels[np.maximum(part, 0)], NOTHING)
            ids.append(np.concatenate([before, pieces[start:end], behind]).astype(np.int32))
            words.append(_between(begins, before, behind))
            learned.append(_between(target, before, behind))
            if counts is not None:
                own_counts = np.where(taught, counts[row][np.maximum(part, 0)], np.float32(0))
                counted.append(_between(own_counts, before, behind, np.float32(0)))
                learned_words.append(_between(np.where(own_counts > 0, part + total, NOTHING), before, behind))
            owners.append(row)
        total += count
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in ids])]).astype(np.int64)
    more = {} if counts is None else {"counted": np.concatenate(counted), "learned_words": np.concatenate(learned_words)}
    return TokenTable(
        np.concatenate(ids), offsets, np.diff(offsets).astype(np.int32), tokenizer.pad_id, types=tokenizer.places.types,
        words=np.concatenate(words), targets=np.concatenate(learned), examples=np.array(owners, np.int32),
        **more,
    )  # fmt: skip


def _between(
    values: np.ndarray, before: Sequence[int], behind: Sequence[int], nothing: int | np.float32 = np.int32(NOTHING)
) -> np.ndarray:
    """With nothing at the special tokens; of its type."""
    return np.concatenate([np.full(len(before), nothing), values, np.full(len(behind), nothing)]).astype(type(nothing))


def _pieces(texts: Sequence[str], by_spaces: bool | np.ndarray, tokenizer) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Of each text its tokens, the word of each token (-1: none), and how many words it has."""
    threads.set_up()
    spaced = np.broadcast_to(by_spaces, len(texts)).tolist()
    for first in range(0, len(texts), _AT_ONCE):
        some, of_words = [], []
        for text, has_spaces in zip(texts[first : first + _AT_ONCE], spaced[first : first + _AT_ONCE]):
            places = word_places(text, has_spaces)
            text, places = without_spaces(text, places) if has_spaces else (text, places)
            some.append(text)
            of_words.append(places)
        with panics_told(tokenizer.source):
            encodings = tokenizer.library.encode_batch(some, add_special_tokens=False)
        for text, encoding, places in zip(some, encodings, of_words):
            word_at = [NOTHING] * len(text)
            for word, (start, end) in enumerate(places):
                word_at[start:end] = [word] * (end - start)
            pieces = pieces_by_word(tokenizer.library, text, encoding, word_at)
            found = np.full(len(pieces), NOTHING)
            for number, (_, (start, end)) in enumerate(pieces):
                while start < end and text[start].isspace():  # byte-level tokens hold the space before a word
                    start += 1
                if start < end:
                    found[number] = word_at[start]
            yield np.array([own for own, _ in pieces], np.int32), found, len(places)


def _windows(count: int, room: int, overlap: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(start, end, which of its tokens are labelled in it) of each window over `count` tokens."""
    if count <= room:
        yield 0, count, np.ones(count, bool)
        return
    starts = [*range(0, count - room, room - overlap), count - room]
    place = np.arange(count)
    inside = np.array([np.minimum(place - start, start + room - 1 - place) for start in starts])
    owner = inside.argmax(axis=0)
    for number, start in enumerate(starts):
        yield start, start + room, owner[start : start + room] == number
