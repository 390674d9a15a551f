"""The masked language model of BERT (Devlin et al. 2018, section 3.1) over `Ops`: what a word in a gap could be.

Names and layout are those of Hugging Face's BertForMaskedLM. Only the rows of masked positions go through the head: its
projection to the vocabulary is as expensive as several encoder layers.
"""

from __future__ import annotations

from . import pretraining
from .bert import activate, dense, make_forward, normalise
from .outputs import output_name
from .spec import ACTIVATIONS, BertConfig

_TRANSFORM = "cls.predictions.transform."
EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
"""There only where it is not the word embeddings, to which it is tied as a rule."""
BIAS = "cls.predictions.bias"
DECODER_BIAS = "cls.predictions.decoder.bias"
"""The same once more in many files; where the two differ, Hugging Face computes with this one."""
MASKED = "masked"
"""Entry of the batch: (batch,) int32, for each row the place row * length + position of its masked token."""


def head_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the head but the decoder's weight."""
    return pretraining.head_shapes(config)["mlm"]


def make_masked_lm(config: BertConfig, tied: bool = True):
    """`f(ops, params, batch) -> [logits]` (batch, vocabulary) of the masked token of each row, in evaluation mode."""
    last = output_name("hidden", config.num_hidden_layers)
    encode = make_forward(config.without_dropout(), frozenset({last}))
    decoder = EMBEDDINGS if tied else DECODER
    size, activation, epsilon = config.hidden_size, ACTIVATIONS[config.hidden_act], config.layer_norm_eps

    def forward(ops, params, batch):
        states = ops.reshape(encode(ops, params, batch)[last], (-1, size))  # (B * L, H)
        x = ops.embedding(states, batch[MASKED])  # (B, H)
        x = activate(ops, dense(ops, params, _TRANSFORM + "dense", x), activation)
        x = normalise(ops, params, _TRANSFORM + "LayerNorm", x, epsilon)
        return [ops.float32(ops.linear(x, params[decoder], params[BIAS]))]

    return forward
