"""What a file says of the rows of a split in a teacher's place: arrays that go with its examples."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from .token_table import TokenTable


@dataclass(frozen=True, kw_only=True)
class TaughtRows:
    """What is known of the answers of a teacher that is a file, a row an example."""

    answered: np.ndarray
    """(examples,) booleans."""
    abstained: np.ndarray
    """(examples,) booleans: where the file has the text, and no answer to it."""
    soft: np.ndarray
    """(examples,) booleans: where the answer is a distribution, and not a label alone."""
    agreement: np.ndarray
    """(examples,) float32: the share of the votes for the answer."""
    confidence: np.ndarray
    """(examples,) float32: how sure the model says it is, else the probability of its answer; NaN where neither is told."""
    cost: np.ndarray
    """(examples, 3) float64: tokens read and written, and money; NaN where they are not told."""
    gold: np.ndarray
    """(examples,) booleans: where the example has a label that is not the file's."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the file, for result.json."""
    told: tuple[str, ...] = ()
    """What a person should know, a line each."""

    def of(self, rows: np.ndarray) -> TaughtRows:
        """Those of some examples."""
        return self._of(rows)

    def _of(self, rows: np.ndarray, others: Collection[str] = (), **more: np.ndarray) -> TaughtRows:
        """With `more` in place of the arrays that have no row an example, the `others`."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray) and name not in others}
        return replace(self, **{name: value[rows] for name, value in arrays.items()}, **more)

    def digest(self) -> str:
        """SHA-256 of what is learned."""
        raise NotImplementedError

    def in_rows(self, table: TokenTable) -> InRows:
        """The same for the rows of a table."""
        raise NotImplementedError


def parts_of(firsts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of examples with any number of parts each, `firsts` (examples + 1,) saying which is the first of each: the parts of the
    examples `rows`, (parts,) int64, and their `firsts`."""
    parts = [np.arange(firsts[row], firsts[row + 1]) for row in rows]
    counts = [len(own) for own in parts]
    return np.concatenate([np.zeros(0, np.int64), *parts]), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def nothing_known(rows: int, examples: int) -> dict[str, np.ndarray]:
    """The arrays of `TaughtRows` that the file fills, before it has: a row an example or a part of one, costs of examples."""
    return {
        **{name: np.zeros(rows, bool) for name in ("answered", "abstained", "soft")},
        "agreement": np.zeros(rows, np.float32),
        "confidence": np.full(rows, np.nan, np.float32),
        "cost": np.full((examples, 3), np.nan),
    }


class InRows(Protocol):
    """What a teacher that is a file gives in place of a model's outputs."""

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """As `TeacherCache.batch`: the logits of a batch of rows, of which -1 only fills."""


@dataclass(frozen=True, kw_only=True)
class Taught(TaughtRows):
    """Answers to whole texts."""

    logits: np.ndarray
    """(examples, outputs) float32: what stands for a model's; 0 where there is no answer."""

    def digest(self):
        return hashlib.sha256(np.ascontiguousarray(self.logits).data).hexdigest()

    def in_rows(self, table):
        return self

    def batch(self, rows, length):
        return {"logits": np.where(rows[:, None] < 0, np.float32(0), self.logits[rows])}


@dataclass(frozen=True, kw_only=True)
class TaughtWords(Taught):
    """The same of texts whose words have labels: a row a word, one text's words behind another's; `cost` is of texts."""

    firsts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    """(examples + 1,) int64: which row is the first of each text, and the end of the last."""

    @property
    def owners(self) -> np.ndarray:
        """(words,) int64: the text of each word."""
        return np.repeat(np.arange(len(self.firsts) - 1), np.diff(self.firsts))

    def in_texts(self, of_words: np.ndarray, nothing: float = 0) -> np.ndarray:
        """What each word has as an array (examples, most words)."""
        counts = np.diff(self.firsts)
        found = np.full((len(counts), max(1, counts.max(initial=0))), nothing, of_words.dtype)
        found[np.arange(found.shape[1]) < counts[:, None]] = of_words
        return found

    def whole(self, of_words: np.ndarray) -> np.ndarray:
        """(examples,) booleans: whether what is asked (words,) is so of all words of a text, of which there are some."""
        found = np.diff(self.firsts) > 0
        found[self.owners[~of_words]] = False
        return found

    def of(self, rows):
        words, firsts = parts_of(self.firsts, rows)
        return self._of(words, ("cost", "firsts"), cost=self.cost[rows], firsts=firsts)

    def in_rows(self, table):
        return TaughtTokens(np.concatenate([self.logits, np.zeros((1, self.logits.shape[1]), np.float32)]), table)


@dataclass(frozen=True)
class TaughtTokens:
    """The same at the tokens where the words are learned."""

    logits: np.ndarray
    """(words + 1, outputs) float32, the last one 0."""
    table: TokenTable

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The logits (batch, length, outputs), 0 where no word is learned."""
        words, offsets = np.full((len(rows), length), -1, np.int32), self.table.offsets
        for own, row in zip(words, rows):
            if row >= 0:
                own[: offsets[row + 1] - offsets[row]] = self.table.learned_words[offsets[row] : offsets[row + 1]]
        return {"logits": self.logits[words]}
