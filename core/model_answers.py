"""What a model answers to all examples of a split: one array, whatever process computed which batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from .best_answers import Answer, best_answers
from .data.answer_format import AnswerFormat
from .data.batches import evaluation_batches
from .data.row_batches import Batch
from .data.tokenize import TokenTable
from .models.answer_heads import SENTENCES
from .models.architectures import Config, make_forward
from .world import World

EVALUATION_BATCH = 64


@functools.lru_cache(64)  # the same function for the same model: it is compiled once
def logits_function(config: Config):
    """`f(ops, parameters, batch) -> [logits]` of a model in evaluation mode; of one that embeds texts, their vectors."""
    output = getattr(config, "classifier", SENTENCES).output
    forward = make_forward(config.without_dropout(), frozenset({output}))

    def logits(ops, parameters, batch):
        return [forward(ops, parameters, batch)[output]]

    return logits


def answers_to(
    world: World,
    table: TokenTable,
    contexts: Sequence[str],
    format: AnswerFormat,
    buckets: tuple[int, ...],
    infer: Callable[[Batch], list[np.ndarray]],
) -> list[Answer]:
    """A model's answer to each question of a table."""
    size = min(EVALUATION_BATCH, len(table.lengths))

    def found() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, batch in evaluation_batches(table, None, size, buckets, share=world.share):
            for row, own in zip(rows, infer(batch)[0]):  # (L, 2)
                tokens = np.arange(table.offsets[row], table.offsets[row + 1])
                yield tokens, own[: len(tokens)]

    return best_answers(table, _gathered(world, len(table.ids), found()), contexts, format)


def word_logits(
    world: World,
    count: int,
    table: TokenTable,
    batches: Iterable[tuple[np.ndarray, Batch]],
    infer: Callable[[Batch], list[np.ndarray]],
) -> np.ndarray:
    """The logits (count, outputs) of `count` words, each from the token where it begins."""

    def found() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, batch in batches:
            logits = infer(batch)[0]  # (B, L, C)
            for row, own in zip(rows, logits):
                words = table.words[table.offsets[row] : table.offsets[row + 1]]
                yield words[words >= 0], own[: len(words)][words >= 0]

    return _gathered(world, count, found())


def gathered_logits(
    world: World,
    count: int,
    batches: Iterable[tuple[np.ndarray, Batch]],
    infer: Callable[[Batch], list[np.ndarray]],
) -> np.ndarray:
    """The logits (count, outputs) of `count` examples, each process's from its own (rows, batch) of them."""
    return _gathered(world, count, ((rows, infer(batch)[0][: len(rows)]) for rows, batch in batches))


def _gathered(world: World, count: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The logits (count, outputs) of all processes, each of which has some (rows, their logits)."""
    computed: dict[str, list[np.ndarray]] = {"rows": [np.zeros(0, np.int64)], "logits": []}
    for rows, logits in parts:
        computed["rows"].append(rows)
        computed["logits"].append(logits)
    shares = world.arrays({name: np.concatenate(parts) for name, parts in computed.items() if parts})
    found = [share for share in shares if "logits" in share]
    logits = np.zeros((count, found[0]["logits"].shape[1]), np.float32)
    for share in found:
        logits[share["rows"]] = share["logits"]
    return logits
