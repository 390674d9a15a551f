"""The texts and labels of a task, tokenized for one model, and how a model is scored on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .data.batches import evaluation_batches
from .data.tasks import Examples, TaskSpec, read_split
from .data.tokenize import Tokenizer, TokenTable, tokenized
from .metrics import compute_metrics
from .models.architectures import Config, make_forward
from .models.outputs import LOGITS
from .sections import TaskSection

EVALUATION_BATCH = 64
MISMATCHED = "dev_mismatched"
"""MNLI's second development set, from other genres than its training texts."""


@dataclass
class TaskData:
    """The splits of a task that a job uses, tokenized."""

    spec: TaskSpec
    tokenizer: Tokenizer
    buckets: tuple[int, ...]
    examples: dict[str, Examples]
    tokens: dict[str, TokenTable]

    def score(self, split: str, infer: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> tuple[dict, np.ndarray]:
        """The metrics on a split and the logits (examples, outputs) in file order; `infer` maps a batch to [logits]."""
        examples = self.examples[split]
        logits: np.ndarray | None = None
        for rows, batch in evaluation_batches(self.tokens[split], examples.labels, EVALUATION_BATCH, self.buckets):
            values = infer(batch)[0]
            if logits is None:
                logits = np.zeros((len(examples), values.shape[1]), np.float32)
            logits[rows] = values[: len(rows)]
        labels = examples.labels
        return ({} if labels is None else compute_metrics(self.spec.metrics, logits, labels)), logits

    def final_metrics(self, infer: Callable) -> tuple[dict[str, float], np.ndarray | None]:
        """The metrics of a finished model on dev, with MNLI's mismatched ones beside them, and the logits on dev. Raw
        text has neither."""
        if "dev" not in self.examples:
            return {}, None
        metrics, logits = self.score("dev", infer)
        if MISMATCHED in self.examples:
            mismatched, _ = self.score(MISMATCHED, infer)
            metrics |= {f"{name}_mismatched": value for name, value in mismatched.items()}
        return metrics, logits


def load_data(
    spec: TaskSpec, section: TaskSection, tokenizer: Tokenizer, buckets: tuple[int, ...], splits: tuple[str, ...]
) -> TaskData:
    """Read and tokenize splits of a task."""
    examples = {split: read_split(spec, section.data, split) for split in splits}
    return tokenize(spec, tokenizer, buckets, examples, section.max_length)


def tokenize(
    spec: TaskSpec, tokenizer: Tokenizer, buckets: tuple[int, ...], examples: dict[str, Examples], max_length: int
) -> TaskData:
    """Examples as a model with that tokenizer takes them."""
    tokens = {split: tokenized(found, tokenizer, max_length) for split, found in examples.items()}
    return TaskData(spec, tokenizer, buckets, examples, tokens)


def logits_function(config: Config):
    """`f(ops, parameters, batch) -> [logits]` of a model in evaluation mode."""
    forward = make_forward(config.without_dropout(), frozenset({LOGITS}))

    def logits(ops, parameters, batch):
        return [forward(ops, parameters, batch)["logits"]]

    return logits
