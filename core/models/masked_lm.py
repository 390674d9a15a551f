"""The masked language model of BERT (Devlin et al. 2018, section 3.1) over `Ops`: what a word in a gap could be, and how well
a model guesses masked words."""

from __future__ import annotations

import functools

from .encoder import make_forward
from .heads import words_head
from .outputs import DECODER_BIAS, DECODER_WEIGHT, MASKED_WORDS
from .spec import EncoderConfig

_OUTPUTS = frozenset({MASKED_WORDS, DECODER_WEIGHT, DECODER_BIAS})


def make_masked_lm(config: EncoderConfig, tied: bool = True):
    """`f(ops, params, batch) -> [logits]` (masked, vocabulary) of the batch's `masked_rows`, in evaluation mode. `tied`: words
    are predicted with the word embeddings, else with a weight of their own."""
    forward, untied = make_forward(config.without_dropout(), _OUTPUTS), words_head(config).last + ".weight"

    def logits(ops, params, batch):
        made = forward(ops, params, batch)
        weight = made[DECODER_WEIGHT] if tied else params[untied]
        return [ops.float32(ops.linear(made[MASKED_WORDS], weight, made[DECODER_BIAS]))]

    return logits


@functools.lru_cache(64)  # the same function for the same model: it is compiled once
def make_masked_loss(config: EncoderConfig):
    """`f(ops, params, batch) -> [loss]`: the sum over the masked tokens of a batch of -log of the probability of the right
    word, in evaluation mode."""
    forward = make_forward(config.without_dropout(), _OUTPUTS)

    def loss(ops, params, batch):
        made = forward(ops, params, batch)
        weight, bias = made[DECODER_WEIGHT], made[DECODER_BIAS]
        labels, weights = batch["masked_labels"], batch["masked_weights"]
        return [ops.word_cross_entropy(made[MASKED_WORDS], weight, bias, labels, weights)]

    return loss
