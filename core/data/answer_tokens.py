"""Questions with their contexts as rows of tokens: a context that is longer than a model takes in windows, each behind the
question, as Google's `run_squad` cuts them (Devlin et al. 2018).

A window in which the answer is not, or not whole, has its answer at the first token ([CLS]); so has a question without an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .. import threads
from ..errors import DataError
from ..shown import shown
from .answer_format import AnswerFormat
from .panics import panics_told
from .token_table import TokenTable

NOWHERE = -1
_AT_ONCE = 512


def question_table(
    questions: Sequence[str],
    contexts: Sequence[str],
    targets: np.ndarray | None,
    tokenizer,
    max_length: int,
    format: AnswerFormat,
    places: bool = True,
    named: Callable[[int], str] | None = None,
) -> TokenTable:
    """The rows of all questions. `targets` (questions, 2) say from which to which character each answer is, -1 where there is
    none. Of each row `examples` says which question it is of and `spans` the first and last token of the answer; with `places`,
    `places` says from where to where each token of a context is in its characters, and `owned` whether the token has more of
    the context around it than in other windows. `named(row)` is what errors call a question. Raises DataError."""
    named = named or (lambda row: f"question {row + 1}")
    before, between, behind = (list(part) for part in tokenizer.places.pair)
    if not before:
        raise DataError(f"{tokenizer.source}: puts no token before a text, where windows without an answer have theirs")
    ids: list[np.ndarray] = []
    firsts, examples, spans, where, owned, begins = [], [], [], [], [], []
    for row, (question, (pieces, offsets)) in enumerate(_pieces(questions, contexts, tokenizer)):
        question = question[: format.question_length]
        head = [*before, *question, *between]
        room = max_length - len(head) - len(behind)
        if room < 1:
            need = len(head) + len(behind) + 1
            raise DataError(
                f"{named(row)}: task.max_length: {max_length} leaves no room for a context behind the question, expected {need} "
                "or more, or a smaller task.answers.question_length"
            )
        if not len(pieces):
            raise DataError(f"{named(row)}: its context {shown(contexts[row], 40)} has no tokens, so no answer can be in it")
        answer = None if targets is None or targets[row, 0] < 0 else _tokens_of(offsets, *targets[row])
        windows = list(_windows(len(pieces), room, min(format.stride, room)))
        owner = _owners(windows, len(pieces)) if places else None
        for number, (start, end) in enumerate(windows):
            ids.append(np.array([*head, *pieces[start:end], *behind], np.int32))
            firsts.append(len(head))
            examples.append(row)
            begins.append(start)
            spans.append(_in_window(answer, start, end, len(head)))
            if places:
                own = np.full((len(ids[-1]), 2), NOWHERE, np.int32)
                own[len(head) : len(head) + end - start] = offsets[start:end]
                where.append(own)
                mine = np.zeros(len(own), bool)
                mine[len(head) : len(head) + end - start] = owner[start:end] == number
                owned.append(mine)
    lengths = [len(each) for each in ids]
    return TokenTable(
        np.concatenate(ids), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.array(firsts, np.int32),
        tokenizer.pad_id, types=tokenizer.places.types, examples=np.array(examples, np.int32), spans=np.array(spans, np.int32),
        places=np.concatenate(where) if places else None, owned=np.concatenate(owned) if places else None,
        begins=np.array(begins, np.int32),
    )  # fmt: skip


def ends_in_rows(
    table: TokenTable, places: np.ndarray, firsts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the answers of each question, `places[firsts[i]:firsts[i + 1]]` from which character to which (answers, 2), are in
    the rows of a table with places: (n, 2) int32 the first and last token of an answer in a row, by the rule of `spans`; (n,)
    int64 which answer it is; (rows + 1,) int64 which of the n are each row's."""
    rows_of = np.searchsorted(table.examples, np.arange(len(firsts)))
    ends, which, counts = [], [], np.zeros(len(table.examples) + 1, np.int64)
    for question, (first, last) in enumerate(zip(rows_of[:-1].tolist(), rows_of[1:].tolist())):
        parts = [table.places[table.offsets[row] : table.offsets[row + 1]] for row in range(first, last)]
        parts = [part[part[:, 0] >= 0] for part in parts]
        sizes = [(int(table.begins[row]), int(table.begins[row]) + len(part)) for row, part in zip(range(first, last), parts)]
        context = np.zeros((sizes[-1][1] if sizes else 0, 2), np.int32)
        for part, (start, end) in zip(parts, sizes):
            context[start:end] = part
        numbers = range(int(firsts[question]), int(firsts[question + 1]))
        found = [None if places[number, 0] < 0 else _tokens_of(context, *places[number]) for number in numbers]
        for row, (start, end) in zip(range(first, last), sizes):
            ends += [_in_window(answer, start, end, int(table.first_lengths[row])) for answer in found]
            which += numbers
            counts[row + 1] = len(numbers)
    return np.array(ends, np.int32).reshape(-1, 2), np.array(which, np.int64), np.cumsum(counts)


def answers_without_window(table: TokenTable, targets: np.ndarray) -> np.ndarray:
    """The questions whose answer is in no window of the table whole, or has no token: they are learned as if without one."""
    there = np.zeros(len(targets), bool)
    there[table.examples[table.spans[:, 0] > 0]] = True
    return np.flatnonzero((targets[:, 0] >= 0) & ~there)


def places_without_window(table: TokenTable, places: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """The same of several answers to each question, as `ends_in_rows` takes them: the questions of which one is in no window."""
    ends, which, _ = ends_in_rows(table, places, firsts)
    there = places[:, 0] < 0
    there[which[ends[:, 0] > 0]] = True
    return np.unique(np.searchsorted(firsts, np.flatnonzero(~there), "right") - 1)


def _pieces(
    questions: Sequence[str], contexts: Sequence[str], tokenizer
) -> Iterator[tuple[list[int], tuple[np.ndarray, np.ndarray]]]:
    """Of each question its tokens, and those of its context with where each is: (tokens, 2). Questions about one context follow
    one another, and it is taken apart once."""
    threads.set_up()
    context, found = None, None
    for first in range(0, len(questions), _AT_ONCE):
        some = list(questions[first : first + _AT_ONCE])
        with panics_told(tokenizer.source):
            encodings = tokenizer.library.encode_batch(some, add_special_tokens=False)
            for row, encoding in enumerate(encodings, first):
                if contexts[row] != context:
                    context = contexts[row]
                    found = _context_pieces(context, tokenizer)
                yield encoding.ids, found


def _context_pieces(context: str, tokenizer) -> tuple[np.ndarray, np.ndarray]:
    encoding = tokenizer.library.encode(context, add_special_tokens=False)
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    for number, (start, end) in enumerate(encoding.offsets):
        while start < end and context[start].isspace():  # byte-level tokens hold the space before a word
            start += 1
        offsets[number, 0] = start
    return np.array(encoding.ids, np.int32), offsets


def _tokens_of(offsets: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """The first and the last token with a character of the answer; None where no token has one."""
    inside = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < end) & (offsets[:, 0] < offsets[:, 1]))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _in_window(answer: tuple[int, int] | None, start: int, end: int, before: int) -> tuple[int, int]:
    """The places of an answer's first and last token of a context in the row that has those from `start` to `end` behind `before`
    others: both 0 where it has it not whole."""
    inside = answer is not None and start <= answer[0] and answer[1] < end
    return (answer[0] - start + before, answer[1] - start + before) if inside else (0, 0)


def _windows(count: int, room: int, step: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each window over `count` tokens."""
    start = 0
    while True:
        yield start, min(start + room, count)
        if start + room >= count:
            return
        start += step


def _owners(windows: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """(tokens,): the window in which each token has the most tokens before and behind it, and of equal ones the longer."""
    if len(windows) == 1:
        return np.zeros(count, np.int64)
    place = np.arange(count)
    around = [
        np.where((place >= start) & (place < end), np.minimum(place - start, end - 1 - place) + 0.01 * (end - start), -np.inf)
        for start, end in windows
    ]
    return np.argmax(around, axis=0)
