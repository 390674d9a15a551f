"""What a file says in a teacher's place of the answers to questions: parts of their contexts, each with its share, and from that
the distributions of where an answer begins and where it ends, over the tokens of a window.

With q_t the sum of the shares of the answers that begin (or end) at a token t of a window, those that the window does not have
whole being at its first token ([CLS]), as is the answer that the context has none; with n the number of its tokens, m that of
those whose q is above 0, and r what is left for others:
  q_t     of the n - m others: min(r / (n - m), the least q above 0)
  p_t     max(q_t / sum q, floor), divided by the sum of these
  logits  log p_t - mean over t of log p_t
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from .answer_tokens import ends_in_rows
from .taught import TaughtRows, parts_of
from .token_table import TokenTable


@dataclass(frozen=True, kw_only=True)
class TaughtAnswers(TaughtRows):
    """The answers of a teacher that is a file, one question's behind another's."""

    places: np.ndarray
    """(answers, 2) int32: from which character of its context to which each is, the best one of a question first; -1: the context
    has none."""
    shares: np.ndarray
    """(answers,) float64: how probable each is."""
    rest: np.ndarray
    """(questions,) float64: how probable it is that none of a question's is right."""
    firsts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    """(questions + 1,) int64: which answer is the first of each question, and the end of the last."""
    floor: float = 0.0
    """The least probability of a token."""

    @property
    def best(self) -> np.ndarray:
        """(questions, 2) int32: the place of the best answer; -1 also where there is no answer."""
        found = np.full((len(self.answered), 2), -1, np.int32)
        found[self.answered] = self.places[self.firsts[:-1][self.answered]]
        return found

    def of(self, rows):
        chosen, firsts = parts_of(self.firsts, rows)
        more = {"places": self.places[chosen], "shares": self.shares[chosen], "firsts": firsts}
        return self._of(rows, tuple(more), **more)

    def digest(self):
        digest = hashlib.sha256(f"{self.floor!r}".encode())
        for array in (self.places, self.shares, self.rest, self.firsts):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def in_rows(self, table):
        return TaughtEnds(self, table, *ends_in_rows(table, self.places, self.firsts))


@dataclass(frozen=True)
class TaughtEnds:
    """The same at the tokens of windows."""

    answers: TaughtAnswers
    table: TokenTable
    ends: np.ndarray
    """(places, 2) int32: the first and the last token of an answer in a window, 0 where the window has it not whole."""
    which: np.ndarray
    """(places,) int64: which answer each is."""
    firsts: np.ndarray
    """(windows + 1,) int64: which place is the first of each window, and the end of the last."""

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """As `TeacherCache.batch`: the logits (batch, length, 2) of a batch of windows, of which -1 only fills; 0 at padding."""
        found = np.zeros((len(rows), length, 2), np.float32)
        for own, row in zip(found, rows):
            if row >= 0:
                count = int(self.table.offsets[row + 1] - self.table.offsets[row])
                own[:count] = self._logits(int(row), count)
        return {"logits": found}

    def _logits(self, row: int, count: int) -> np.ndarray:
        """(tokens, 2) float64."""
        places = slice(self.firsts[row], self.firsts[row + 1])
        shares, rest = self.answers.shares[self.which[places]], float(self.answers.rest[self.table.examples[row]])
        found = np.empty((count, 2))
        for end in range(2):
            q = np.bincount(self.ends[places, end], shares, count)
            others = q == 0
            if rest and others.any():
                q[others] = min(rest / others.sum(), q[~others].min())
            p = np.maximum(q / q.sum(), self.answers.floor)
            logs = np.log(p / p.sum())
            found[:, end] = logs - logs.mean()
        return found
