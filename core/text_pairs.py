"""The examples of a task of sentence embeddings as pairs of texts, which a reranker scores that teaches an embedder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .data.tasks import Examples, TaskSpec
from .data.texts import Texts
from .data.tokenize import Tokenizer
from .kinds.known_kinds import ONE_NUMBER
from .task_data import TaskData, tokenize


def pairs_to_score(
    spec: TaskSpec, tokenizer: Tokenizer, buckets: tuple[int, ...], examples: Mapping[str, Examples], max_length: int
) -> TaskData:
    """The rows of train, each text with the first one of its example before it, and the pairs of dev as a regression. The first
    texts are empty rows, so that the rows are those of the texts. Queries that are to find their own among all texts are left
    out: a reranker would have to score each with every text."""
    found = {"train": _paired(examples["train"])}
    if "dev" in examples and examples["dev"].among is None:
        found["dev"] = _paired(examples["dev"], alone=False)
    return tokenize(replace(spec, kind=ONE_NUMBER, embedded=None), tokenizer, buckets, found, max_length)


def _paired(examples: Examples, alone: bool = True) -> Examples:
    """The second texts and all behind them as pairs with the first ones; `alone`, with empty rows for those themselves."""
    count = len(examples.texts) // examples.members
    texts, pairs = examples.texts[:count] * (examples.members - 1), examples.texts[count:]
    if alone:
        texts, pairs = [""] * count + texts, [""] * count + pairs
    return replace(examples, texts=Texts(texts), pairs=Texts(pairs), members=1, row_scores=None, weights=None)
