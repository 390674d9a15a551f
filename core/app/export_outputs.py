"""What an exported graph gives, by the names that others' exports of the kind have (transformers', sentence-transformers'), and
how its runtime's outputs are our models' answers again.

    logits (batch, outputs), of each token (batch, length, outputs)      classifiers, regressions, labels of words
    start_logits, end_logits (batch, length)                             where an answer begins and ends
    sentence_embedding (batch, hidden), token_embeddings (batch, length, hidden)    vectors of texts, and their tokens' states
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..models.answer_heads import EMBEDDINGS, SENTENCES, SPANS, AnswerHead
from ..models.architectures import Config, is_encoder, make_forward
from ..models.encoder import Forward
from ..models.outputs import EMBEDDING, LOGITS, POOLED, output_name

START, END = SPANS.exported
VECTOR, STATES = EMBEDDINGS.exported


def head_of(config: Config) -> AnswerHead:
    """What a model answers with."""
    return getattr(config, "classifier", SENTENCES)


def make_exported(config: Config, hidden: bool) -> Forward:
    """The forward pass of an exported model: its outputs by their names, the answer first; with `hidden`, all hidden states and,
    where the answer is that of a text, what its classifier sees."""
    config, head, others = config.without_dropout(), head_of(config), []
    if hidden and is_encoder(config):
        others = [output_name("hidden", layer) for layer in range(config.num_hidden_layers + 1)]
        others += [POOLED] if head.output == LOGITS and not head.token_map else []
    answer, last = {SPANS: _spans, EMBEDDINGS: _vectors}.get(head, _logits), ""
    if head == EMBEDDINGS:
        last = output_name("hidden", config.num_hidden_layers)
    forward = make_forward(config, frozenset({head.output, *others, *([last] if last else [])}))

    def exported(ops, params, batch):
        made = forward(ops, params, batch)
        outputs = answer(made, last)
        for index in range(len(others)):
            outputs[others[index]] = made[others[index]]
        return outputs

    return exported


def _logits(made, last):
    return {LOGITS: made[LOGITS]}


def _spans(made, last):
    logits = made[LOGITS]
    return {START: logits[:, :, 0], END: logits[:, :, 1]}


def _vectors(made, last):
    return {VECTOR: made[EMBEDDING], STATES: made[last]}


def answer_names(config: Config) -> tuple[str, ...]:
    """Which of the outputs are the answer."""
    head = head_of(config)
    return (VECTOR,) if head == EMBEDDINGS else head.exported


def answer_of(config: Config, made: Sequence[np.ndarray]) -> np.ndarray:
    """A runtime's outputs, those of `answer_names` first, as an engine gives the answer: (batch, outputs), or (batch, length,
    outputs) of each token."""
    return np.stack(made[:2], axis=-1) if head_of(config) == SPANS else made[0]
