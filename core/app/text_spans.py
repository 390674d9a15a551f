"""The spans that a model finds in texts, where its tokens have labels. A text that is longer than the model takes is read in
windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..checkpoint import Model
from ..data.batches import evaluation_batches
from ..data.row_batches import Batch
from ..data.tagged_files import word_places
from ..data.tagged_tokens import tagged_table
from ..data.token_table import unknown_share
from ..data.tokenize import Tokenizer
from ..kinds.token_labels import found_spans
from ..metrics import check_finite
from ..model_answers import EVALUATION_BATCH, word_logits
from ..world import World
from .data_report import unknown_warnings


def spans_in(
    model: Model,
    tokenizer: Tokenizer,
    infer: Callable[[Batch], list[np.ndarray]],
    texts: Sequence[str],
    length: int,
    buckets: tuple[int, ...],
    world: World,
    warn: Callable[[str], None],
    by_spaces: bool = False,
) -> list[tuple[dict[str, Any], ...]]:
    """The spans of each text, as `core.kinds.token_labels.found_spans` has them; `length` is the tokens of a window,
    `by_spaces` whether words are what stands between spaces."""
    how = model.about.get("task", {}).get("tokens") or {}
    table = tagged_table(texts, by_spaces, None, tokenizer, length, how.get("overlap"), False)
    for line in unknown_warnings({"these texts": unknown_share(table, tokenizer)}, tokenizer):
        warn(line)
    places = [word_places(text, by_spaces) for text in texts]
    counts = np.array([len(each) for each in places])
    batches = evaluation_batches(table, None, min(EVALUATION_BATCH, len(table.lengths)), buckets, share=world.share)
    logits = word_logits(world, int(counts.sum()), table, batches, infer)
    check_finite(logits, "words")
    parts = np.split(logits, np.cumsum(counts)[:-1])
    constrained = bool(how.get("constrained"))
    return [
        tuple(found_spans(text, own, part, model.labels, constrained))
        for text, own, part in zip(texts, places, parts, strict=True)
    ]
