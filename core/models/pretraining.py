"""The heads of pre-training, all positions at once: what verifies a converted checkpoint that is no classifier.

    mlm            bert, distilbert, albert   (batch, length, vocabulary)  what a word in a gap could be
    nsp            bert                       (batch, 2)  whether the second text follows the first (0: it does)
    sop            albert                     (batch, 2)  whether the two texts are in their order (0: they are)
    generator      electra                    (batch, length, vocabulary)  as mlm
    discriminator  electra                    (batch, length)  whether a word was put in by the generator

Names and layouts are those of Hugging Face's *ForPreTraining and *ForMaskedLM. Augmentation needs masked positions only and
has a forward pass of its own (`masked_lm`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import Ops, Tensor
from .bert import activate, dense, make_forward, normalise
from .outputs import POOLED, output_name
from .spec import ACTIVATIONS, EncoderConfig

WORDS, PAIRS, TOKENS = "words", "pairs", "tokens"


@dataclass(frozen=True)
class Head:
    """A head and what its parts are called."""

    kind: str
    """`words` predicts a word for each position, `tokens` one number, `pairs` tells of a pair of texts one of two classes."""
    last: str
    """The last linear map."""
    bias: str = ""
    """Its bias, where it is not the map's own."""
    transform: str = ""
    """The linear map before it."""
    norm: str = ""
    """The normalisation after the transform."""
    activation: str | None = None
    """That of the transform, where it is not the encoder's."""

    @property
    def last_bias(self) -> str:
        """Name of the bias of the last linear map."""
        return self.bias or self.last + ".bias"


_HEADS: dict[str, dict[str, Head]] = {
    "bert": {
        "mlm": Head(
            WORDS,
            "cls.predictions.decoder",
            "cls.predictions.bias",
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
        ),
        "nsp": Head(PAIRS, "cls.seq_relationship"),
    },
    "distilbert": {"mlm": Head(WORDS, "vocab_projector", "", "vocab_transform", "vocab_layer_norm")},
    "albert": {
        "mlm": Head(WORDS, "predictions.decoder", "predictions.bias", "predictions.dense", "predictions.LayerNorm"),
        "sop": Head(PAIRS, "sop_classifier.classifier"),
    },
    "electra": {
        "discriminator": Head(
            TOKENS, "discriminator_predictions.dense_prediction", "", "discriminator_predictions.dense"
        ),
        "generator": Head(
            WORDS, "generator_lm_head", "", "generator_predictions.dense", "generator_predictions.LayerNorm", "gelu"
        ),
    },
}


def decoders(config: EncoderConfig) -> dict[str, str]:
    """Head -> name of its decoder's weight (vocabulary, embedding), for the heads that predict words. As a rule it is tied
    to the word embeddings, and then no part of `head_shapes`."""
    heads = _HEADS[config.names.model_type]
    return {name: head.last + ".weight" for name, head in heads.items() if head.kind == WORDS}


def head_shapes(config: EncoderConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Head -> name -> shape of each of its tensors but the decoder's weight. A bias that many files hold under two names
    (`cls.predictions.bias`, `cls.predictions.decoder.bias`) is there once, under the first one."""
    return {name: _shapes(config, head) for name, head in _HEADS[config.names.model_type].items()}


def _shapes(config: EncoderConfig, head: Head) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden_size
    width = config.embedding_size if head.kind == WORDS else hidden
    shapes: dict[str, tuple[int, ...]] = {}
    if head.transform:
        shapes[head.transform + ".weight"], shapes[head.transform + ".bias"] = (width, hidden), (width,)
    if head.norm:
        shapes[head.norm + ".weight"] = shapes[head.norm + ".bias"] = (width,)
    rows = {WORDS: config.vocab_size, PAIRS: 2, TOKENS: 1}[head.kind]
    if head.kind != WORDS:
        shapes[head.last + ".weight"] = (rows, width)
    shapes[head.last_bias] = (rows,)
    return shapes


def make_pretraining(
    config: EncoderConfig, heads: frozenset[str], wanted: frozenset[str] = frozenset(), tied: bool = True
):
    """`f(ops, params, batch) -> {name: float32 tensor}` in evaluation mode: the logits of each of `heads` under its name, and
    the `wanted` outputs of the encoder (`core.models.outputs`). `tied`: words are predicted with the word embeddings,
    else with a weight of their own (`decoders`)."""
    own = _HEADS[config.names.model_type]
    unknown = sorted(heads - set(own))
    if unknown:
        raise ValueError(f"{config.names.model_type} has no head {', '.join(unknown)}, only {', '.join(own)}")
    last = output_name("hidden", config.num_hidden_layers)
    pairs = sorted(name for name in heads if own[name].kind == PAIRS)
    tokens = sorted(name for name in heads if own[name].kind != PAIRS)
    needed = set(wanted) | ({POOLED} if pairs else set()) | ({last} if tokens else set())
    encode = make_forward(config.without_dropout(), frozenset(needed))
    pair_maps = [own[name].last for name in pairs]
    functions = [_make_head(config, own[name], tied) for name in tokens]
    returned = sorted(wanted)

    def forward(ops, params, batch):
        made = encode(ops, params, batch)
        outputs = {}
        for name in returned:
            outputs[name] = made[name]
        for index in range(len(pairs)):
            outputs[pairs[index]] = dense(ops, params, pair_maps[index], made[POOLED])
        for index in range(len(tokens)):
            outputs[tokens[index]] = functions[index](ops, params, made[last])
        return outputs

    return forward


def _make_head(config: EncoderConfig, head: Head, tied: bool):
    """`f(ops, params, x) -> logits` of every position."""
    transform, norm, epsilon = head.transform, head.norm, config.layer_norm_eps
    activation = ACTIVATIONS[head.activation or config.hidden_act]
    weight = config.names.embeddings + "word_embeddings.weight" if tied and head.kind == WORDS else head.last + ".weight"
    bias, normalises, one = head.last_bias, bool(norm), head.kind == TOKENS

    def apply(ops: Ops, params, x: Tensor):
        x = activate(ops, dense(ops, params, transform, x), activation)
        if normalises:
            x = normalise(ops, params, norm, x, epsilon)
        logits = ops.float32(ops.linear(x, params[weight], params[bias]))
        return logits[:, :, 0] if one else logits

    return apply
