"""What follows from a family's tree of parts: names and shapes of tensors, which of them an output needs, where a size shows, and
what each is a part of."""

from __future__ import annotations

import functools
from dataclasses import replace
from math import prod

from .answer_heads import AnswerHead
from .outputs import ATTENTION_KINDS, DECODER_BIAS, DISTANCE_MAPS, LOGITS, MASKED_WORDS, POOLED, WORDS, attention_kinds, depth
from .parts import (
    ATTENTION_INPUT,
    ATTENTION_NORM,
    CLASSIFIER,
    CONV1D,
    DENSE,
    EMBEDDINGS,
    ENCODER,
    FINAL_NORM,
    LAYER,
    NORM,
    OUTPUTS,
    POOLER,
    TABLE,
    TENSOR,
    UNUSED,
    Family,
    Part,
    Shape,
)
from .parts import WORDS as OF_WORDS
from .spec import ModelConfig

_ENCODER_PLACES = (EMBEDDINGS, LAYER, ENCODER)
_PLACES = (*_ENCODER_PLACES, POOLER, CLASSIFIER)
_SIZES = ("vocab_size", "embedding_size", "hidden_size", "max_position_embeddings", "type_vocab_size", "intermediate_size")
"""BERT's names of those that tensors can prove."""


def tensor_shapes(config: ModelConfig, outputs: int | None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a classifier with `outputs` logits (1 for regression), in Hugging Face's order; None is a
    model without a classifier."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place in _PLACES:
        skipped = outputs is None and (place == CLASSIFIER or place == POOLER and not config.family.pooler_in_encoder)
        if not skipped:
            shapes |= {name: _sized(config, shape, outputs) for name, shape in _tensors(config, place).items()}
    return shapes


def head_shapes(config: ModelConfig, head: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor of a head of pre-training but those that are copies of others."""
    parts = [part for part in config.family.at(head) if part.tied is None]
    return {name: _sized(config, shape, None) for part in parts for name, shape in part.tensors(config).items()}


def unused_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what encoders' files hold beside the tensors that anything is computed with."""
    parts = config.family.at(UNUSED)
    return {name: _sized(config, shape, None) for part in parts for name, shape in part.tensors().items()}


def buffers(config: ModelConfig) -> tuple[str, ...]:
    """What files hold in the layers and nothing is computed with."""
    prefixes = [prefix for layer in range(config.num_hidden_layers) for prefix in config.layer_prefixes(layer)]
    return tuple(prefix + name for name in config.family.buffers for prefix in prefixes)


def words_place(config: ModelConfig) -> str:
    """The head with which a model of this configuration predicts words; empty where there is none."""
    parts = (part for part in config.family.parts if part.role.startswith(f"{OF_WORDS}."))
    return next((part.place for part in parts if part.is_there(config)), "")


def used_tensors(config: ModelConfig, wanted: frozenset[str]) -> frozenset[str]:
    """Names of the tensors that the `wanted` outputs depend on; the others get no gradient and are not trained."""
    family = config.family
    if not family.is_encoder:
        return frozenset(tensor_shapes(config, 1)) if wanted else frozenset()
    last, used = depth(wanted, config.num_hidden_layers), set()
    places = [EMBEDDINGS] + [POOLER] * bool({LOGITS, POOLED} & wanted) + [CLASSIFIER] * (LOGITS in wanted)
    for place in places:
        used |= _tensors(config, place).keys()
    for number in range(1, config.num_hidden_layers + 1):
        prefixes, kinds = config.layer_prefixes(number - 1), attention_kinds(wanted, number)
        if number <= last:
            used |= {prefix + name for prefix in prefixes for name in _of_layer(config, number - 1)}
        roles = {role for kind in kinds for role in ATTENTION_KINDS[kind]}
        for part in _parts_of_attention(config, number - 1, roles):
            used |= {prefixes[0] + name for name in part.tensors(config)}
        if number <= last or "scores" in kinds:
            used |= {
                name
                for part in present(config, ENCODER)
                if part.role != FINAL_NORM or last == config.num_hidden_layers
                for name in part.tensors(config)
            }
    if head := words_place(config):
        own = head_shapes(config, head).keys()
        bias = {part.name for part in family.at(head) if part.role == f"{OF_WORDS}.bias"}
        used |= bias if DECODER_BIAS in wanted else set()
        used |= own - bias if wanted & {WORDS, MASKED_WORDS} else set()
    return frozenset(used)


@functools.lru_cache(64)
def places(config: ModelConfig) -> dict[str, str]:
    """Name of each tensor of a classifier, and of its head that predicts words -> its part of the model: embeddings, encoder,
    pooler, classifier or words."""
    found = dict.fromkeys(head_shapes(config, words_place(config)), OF_WORDS)
    for place in _PLACES:
        found |= dict.fromkeys(_tensors(config, place), ENCODER if place == LAYER else place)
    return found


def by_word(config: ModelConfig) -> set[str]:
    """Names of the tensors whose rows are words: the embeddings, and what maps back to them."""
    return {name for part in config.family.parts if part.shape[0] == "vocab_size" for name in part.tensors()}


def templates(family: Family) -> dict[str, Part]:
    """Name of every kind of tensor that is no copy, with `{}` for each number of a layer -> the part that it is of."""
    prefix = layer_template(family)
    return {
        (prefix if part.place == LAYER else "") + name: part
        for part in family.parts
        if part.tied is None
        for name in part.tensors()
    }


def layer_template(family: Family) -> str:
    """The prefix of a layer with `{}` for each of its numbers."""
    return family.layer.replace("{layer}", "{}").replace("{group}", "{}").replace("{inner}", "{}")


def tied(family: Family) -> dict[str, str]:
    """Name -> the tensor that it is a copy of."""
    return {part.name: part.tied for part in family.parts if part.tied is not None}


@functools.cache
def size_places(chosen: type[ModelConfig]) -> dict[str, tuple[str, int]]:
    """Key of a configuration -> (tensor that every model of the family has, axis of its shape that has this size): of a
    normalisation rather than of a linear map's bias or a table, which some files hold without their shape."""
    config, found = chosen(), {}
    for key in map(chosen.own_key, _SIZES):
        size = chosen.common.get(key, key)
        if key in chosen.model_fields and (place := _first_of_size(config, size)):
            found[key] = place
    return found


def encoder_sizes(config: ModelConfig) -> list[str]:
    """BERT's names of the sizes that an encoder's tensors have."""
    parts = [part for place in _ENCODER_PLACES for part in present(config, place)]
    return list(dict.fromkeys(size for part in parts for size in part.shape if isinstance(size, str)))


def _first_of_size(config: ModelConfig, size: str) -> tuple[str, int] | None:
    for place in _ENCODER_PLACES:
        prefix = config.layer_prefixes(0)[0] if place == LAYER else ""
        always = [part for part in config.family.at(place) if part.when is None and part.from_layer == 0]
        parts = [part for part in always if part.outputs == size]
        for kind, suffix in ((NORM, "weight"), (DENSE, "bias"), (CONV1D, "bias"), (TABLE, "weight")):
            if names := [part.name for part in parts if part.kind == kind and (suffix == "weight" or part.biased is None)]:
                return f"{prefix}{names[-1]}.{suffix}", 0
        if names := [part.name for part in always if part.kind == DENSE and part.shape[1] == size]:
            return f"{prefix}{names[-1]}.weight", 1
    return None


def products(config: ModelConfig, *at: str, outputs: int | None = None) -> int:
    """Multiplications of a vector with the matrices of the parts at these places, once each; those of one layer for `LAYER`. The
    maps of distances are not among them: no token goes through them."""
    passes = {LAYER: len(config.layer_prefixes(0))}
    return sum(
        passes.get(place, 1) * prod(_sized(config, part.shape, outputs or 0))
        for place in at
        for part in present(config, place)
        if part.role not in DISTANCE_MAPS and (part.kind in (DENSE, CONV1D) or (part.kind == TENSOR and len(part.shape) > 2))
    )


def _tensors(config: ModelConfig, place: str) -> dict[str, Shape]:
    """Name -> sizes of all tensors at a place. Of shared layers the first to come makes the entries."""
    if place != LAYER:
        return {name: shape for part in present(config, place) for name, shape in part.tensors(config).items()}
    return {
        prefix + name: shape
        for layer in range(config.num_hidden_layers)
        for prefix in config.layer_prefixes(layer)
        for name, shape in _of_layer(config, layer).items()
    }


def _of_layer(config: ModelConfig, layer: int) -> dict[str, Shape]:
    """Name behind the prefix -> sizes of the tensors of a layer, from 0."""
    return {name: shape for part in present(config, LAYER, layer) for name, shape in part.tensors(config).items()}


def _parts_of_attention(config: ModelConfig, layer: int, roles: set[str]) -> list[Part]:
    """The parts of a layer that queries, keys or values are made with, which are their `roles`."""
    if not roles:
        return []
    before = {ATTENTION_INPUT} | ({ATTENTION_NORM} if config.family.block.normalised_before else set())
    return [part for part in present(config, LAYER, layer) if part.role in roles | before]


def present(config: ModelConfig, place: str, layer: int | None = None) -> list[Part]:
    """The parts at a place that a model of this configuration has; with `layer`, from 0, that this layer has."""
    of_head = place in (POOLER, CLASSIFIER) and config.family.is_encoder
    parts = head_parts(config.family, config.classifier) if of_head else config.family.parts
    return [part for part in parts if part.place == place and part.is_there(config, layer)]


@functools.lru_cache(256)
def head_parts(family: Family, head: AnswerHead) -> tuple[Part, ...]:
    """What a classifier of the family has behind the encoder: parts at `POOLER` and `CLASSIFIER`. One of tokens needs no pooler,
    but in families where each token goes through its map."""
    if head.name in family.own_heads:
        return tuple(replace(part, name=part.name.replace("{root}", family.root)) for part in family.own_heads[head.name])
    if head.token_map:
        return (Part("classifier", head.token_map, DENSE, (OUTPUTS, "hidden_size"), CLASSIFIER),)
    return tuple(family.at(POOLER, CLASSIFIER))


def has_bias(config: ModelConfig, role: str) -> bool:
    """Whether the part of this role has a bias in a model of this configuration."""
    return config.family.by_role[role].has_bias(config)


def _sized(config: ModelConfig, shape: Shape, outputs: int | None) -> tuple[int, ...]:
    sizes = (size if isinstance(size, int) else outputs if size == OUTPUTS else getattr(config, size) for size in shape)
    return tuple(sizes)
