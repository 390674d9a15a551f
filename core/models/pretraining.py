"""The heads of pre-training, all positions at once: what verifies a converted checkpoint that is no classifier.

    mlm            bert, distilbert, albert   (batch, length, vocabulary)  what a word in a gap could be
    lm             deberta-v2                 (batch, length, vocabulary)  as mlm, of the published files
    clm            gpt2                       (batch, length, vocabulary)  what the next word could be
    nsp            bert                       (batch, 2)  whether the second text follows the first (0: it does)
    sop            albert                     (batch, 2)  whether the two texts are in their order (0: they are)
    generator      electra                    (batch, length, vocabulary)  as mlm
    discriminator  electra                    (batch, length)  whether a word was put in by the generator

Names and layouts are those of Hugging Face's *ForPreTraining and *ForMaskedLM. Augmentation needs masked positions only and
has a forward pass of its own (`masked_lm`).
"""

from __future__ import annotations

from ..ops import Ops, Tensor
from .components import dense
from .encoder import make_forward
from .encoder_heads import make_transform
from .heads import Head, heads_of, word_embeddings
from .outputs import POOLED, output_name
from .parts import PAIRS, TOKENS, WORDS
from .spec import EncoderConfig


def make_pretraining(
    config: EncoderConfig, heads: frozenset[str], wanted: frozenset[str] = frozenset(), tied: bool = True
):
    """`f(ops, params, batch) -> {name: float32 tensor}` in evaluation mode: the logits of each of `heads` under its name, and
    the `wanted` outputs of the encoder (`core.models.outputs`). `tied`: words are predicted with the word embeddings,
    else with a weight of their own (`decoders`)."""
    own = heads_of(config.family)
    unknown = sorted(heads - set(own))
    if unknown:
        raise ValueError(f"{config.family.model_type} has no head {', '.join(unknown)}, only {', '.join(own)}")
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
    transform = make_transform(config, head)
    weight = word_embeddings(config) if head.kind == WORDS and (tied or not head.last) else head.last + ".weight"
    bias, one = head.last_bias, head.kind == TOKENS

    def apply(ops: Ops, params, x: Tensor):
        logits = ops.float32(ops.linear(transform(ops, params, x), params[weight], params[bias] if bias else None))
        return logits[:, :, 0] if one else logits

    return apply
