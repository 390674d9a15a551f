"""Terms over logits (examples, classes) where an example has several answers: the same terms over rows of logits, one for each
token of a word that is learned, or one for the beginning of an answer and one for its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..models.outputs import LOGITS
from ..ops import Tensor

HostBatch = Mapping[str, np.ndarray]
_OF_TEACHER = f"/{LOGITS}"
_NEVER = -10000.0
"""The logit of a place that is none: its exponential is 0 at any temperature that is used, and its gradient too."""


@dataclass(frozen=True)
class RowsOfLogits:
    """What a term takes as its examples."""

    counted: Callable[[HostBatch], dict[str, np.ndarray]]
    """Host arrays of a batch as the term counts them."""
    of: Callable[[Callable[..., Tensor]], Callable[..., Tensor]]
    """A term over examples as one over the rows."""


WORD_MASK = "word_mask"
"""The key of a batch under which is what the word at each token counts, where that is not 1 at each label and else 0."""


def _tokens_counted(batch: HostBatch) -> dict[str, np.ndarray]:
    counted = (learned_tokens(batch) * batch["example_mask"][:, None]).reshape(-1)
    return {"labels": batch["labels"].reshape(-1), "label_mask": batch["label_mask"].reshape(-1), "example_mask": counted}


def learned_tokens(batch: Mapping[str, Tensor]) -> Tensor:
    """(B, L): what the word at each token counts, 0 where none is learned."""
    return batch[WORD_MASK] if WORD_MASK in batch else batch["label_mask"]


def _of_tokens(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Over logits of tokens (B, L, C): each token is a row, and those where no word is learned only fill."""

    def of_tokens(ops, params, student, teacher, batch, *sums):
        own = student[LOGITS]
        classes = ops.shape(own)[2]
        mask = batch["label_mask"]  # (B, L)
        counted = learned_tokens(batch) * ops.reshape(batch["example_mask"], (-1, 1))
        places = {
            "labels": ops.reshape(batch["labels"], (-1,)),
            "label_mask": ops.reshape(mask, (-1,)),
            "example_mask": ops.reshape(counted, (-1,)),
        }
        taught = {}
        for name in teacher:
            if name == LOGITS or name.endswith(_OF_TEACHER):
                taught[name] = ops.reshape(teacher[name], (-1, classes))
        return function(ops, params, {LOGITS: ops.reshape(own, (-1, classes))}, taught, places, *sums)

    return of_tokens


def _ends_counted(batch: HostBatch) -> dict[str, np.ndarray]:
    twice = {name: np.repeat(batch[name], 2) for name in ("label_mask", "example_mask")}
    lengths = np.repeat(batch["attention_mask"].sum(axis=1), 2)
    return {"labels": batch["labels"].reshape(-1), **twice, "attention_mask": lengths[:, None]}


def _of_ends(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Over logits of tokens (B, L, 2): the beginning of each example's answer is a row, and its end, with a class for each token.
    Padding is none."""

    def of_ends(ops, params, student, teacher, batch, *sums):
        mask = batch["attention_mask"]  # (B, L)
        size, length = ops.shape(mask)
        real = ops.reshape(mask, (size, 1, length))
        never = (1.0 - real) * _NEVER

        places = {"labels": ops.reshape(batch["labels"], (-1,))}
        for name in ("label_mask", "example_mask"):
            column = ops.reshape(batch[name], (-1, 1))
            places[name] = ops.reshape(ops.concat([column, column], 1), (-1,))
        taught = {}
        for name in teacher:
            if name == LOGITS or name.endswith(_OF_TEACHER):
                taught[name] = _end_rows(ops, teacher[name], real, never)
        return function(ops, params, {LOGITS: _end_rows(ops, student[LOGITS], real, never)}, taught, places, *sums)

    return of_ends


def _end_rows(ops, logits: Tensor, real: Tensor, never: Tensor) -> Tensor:
    """(B, L, 2) to (2 B, L)."""
    return ops.reshape(ops.transpose(logits, (0, 2, 1)) * real + never, (-1, ops.shape(logits)[1]))


TOKEN_ROWS = RowsOfLogits(_tokens_counted, _of_tokens)
SPAN_ROWS = RowsOfLogits(_ends_counted, _of_ends)
