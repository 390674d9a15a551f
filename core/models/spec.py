"""What the configurations of all families have in common, and how a new tensor is drawn. Those of the families are in `families`.

The canonical form is Hugging Face's: its configuration keys, tensor names and layouts (`Linear.weight` is (out, in)).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, model_validator

from ..number_keys import NumberKeys
from ..shown import shown
from .answer_heads import EMBEDDINGS, SENTENCES, SPANS, AnswerHead
from .parts import NORM, Family
from .pooling import Pooling

ACTIVATIONS = {
    "gelu": "erf",
    "gelu_python": "erf",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh",
    "gelu_fast": "tanh",
    "gelu_accurate": "tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""transformers' names -> the function: GELU by erf, its tanh approximation, which Google's TF code uses, ReLU or SiLU. Names of
one function are ways to compute it that differ in the last bits."""


def _known_activation(name: str) -> str:
    # No suggestion by spelling: `quick_gelu` is near `gelu`, and another function.
    if name not in ACTIVATIONS:
        known = "; ".join(f"{', '.join(names)} ({kind})" for kind, names in _by_function().items())
        raise ValueError(f"unknown value {shown(name)}; known: {known}")
    return name


def _by_function() -> dict[str, list[str]]:
    kinds = {"erf": "GELU by erf", "tanh": "GELU by its tanh approximation", "relu": "ReLU", "silu": "SiLU"}
    return {kinds[kind]: [name for name, own in ACTIVATIONS.items() if own == kind] for kind in kinds}


Activation = Annotated[str, AfterValidator(_known_activation)]


_MOST_LAYERS, _MOST = 1000, 1 << 24
_OF_CLASSIFIER = "classifier_dropout"


def check_sizes(config: BaseModel) -> BaseModel:
    """ValueError for a size that no model has, before names and shapes of that many tensors are made."""
    for key, value in config:
        most = _MOST_LAYERS if "layers" in key or "group" in key else _MOST
        if type(value) is int and value > most:
            raise ValueError(f"{key} is {shown(value)}, which no model has; expected at most {most:,}")
    return config


class ModelConfig(NumberKeys):
    """A configuration of any family. Its fields are the keys of its `config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

    family: ClassVar[Family]
    common: ClassVar[dict[str, str]] = {}
    """Own key -> BERT's name of the same, where they differ."""
    plugin: ClassVar[str] = ""
    """The plugin that brings the family, a file's name or a module; empty of this package's."""
    code: ClassVar[str] = ""
    """Its SHA-256."""

    _sizes = model_validator(mode="after")(check_sizes)

    @classmethod
    def own_key(cls, name: str) -> str:
        """This family's key for what BERT calls `name`."""
        return next((own for own, common in cls.common.items() if common == name), name)

    @classmethod
    def keys_like(cls, other: ModelConfig) -> dict[str, Any]:
        """The keys of a model of this family that is like another, as far as the two have the same things. What a key consists of
        in several parts is its family's own: that of another may be called the same."""
        if other.family is cls.family:
            return other.model_dump()
        if not (cls.family.is_encoder and other.family.is_encoder):
            return {}
        pairs = {own: cls.common.get(own, own) for own in cls.model_fields}
        keys = {own: getattr(other, name) for own, name in pairs.items() if hasattr(other, name)}
        keys = {key: value for key, value in keys.items() if not isinstance(value, BaseModel)}
        return {key: value for key, value in keys.items() if key != "type_vocab_size" or value}

    @classmethod
    def current_keys(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A whole `config.json` with the family's own keys in place of others that mean the same."""
        return dict(raw)

    @classmethod
    def keys_for_layers(cls, like: ModelConfig, depth: int, layers: tuple[int, ...] | None) -> dict[str, Any]:
        """The keys that follow from which `layers` (from 0) of `like`, a model of this family, a model of this depth has; None
        is not said."""
        return {}

    def without_dropout(self) -> ModelConfig:
        """The same model with every dropout rate 0."""
        return self.with_dropout(0.0)

    def layer_prefixes(self, layer: int) -> tuple[str, ...]:
        """Where the tensors of encoder layer `layer` (from 0) live: one place, or several that follow one another."""
        return (self.family.layer.format(layer=layer),)

    def new_tensor(self, name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        """A tensor of a new model: a normalisation's weights are 1, biases 0, and others drawn."""
        if name.endswith(".weight") and self.family.has(NORM, name):
            return np.ones(shape, np.float32)
        return initial_tensor(name, shape, self.initializer_range, seed)


class EncoderConfig(ModelConfig):
    """What the configurations of the Transformers have in common. Whoever works with any family uses BERT's names for their keys,
    which each has, as field or as property, and the properties here."""

    _classifier: AnswerHead = PrivateAttr(SENTENCES)
    _pooling: Pooling | None = PrivateAttr(None)

    ignored_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of this family's config.json that do not change what our model computes, beside those of all families."""
    aliases: ClassVar[dict[str, str]] = {}
    """Key that transformers takes for another one -> the family's own."""
    computed_otherwise: ClassVar[dict[str, tuple[tuple[Any, ...], str]]] = {}
    """Key of this family's config.json -> (the values with which it changes nothing, what it means with others)."""

    @classmethod
    def current_keys(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A whole `config.json` with the family's own keys in place of others that mean the same."""
        return {cls.aliases.get(key, key): value for key, value in raw.items()}

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> EncoderConfig:
        if self.hidden_size % self.num_attention_heads:
            hidden, heads = self.own_key("hidden_size"), self.own_key("num_attention_heads")
            raise ValueError(f"{hidden} {self.hidden_size} is not a multiple of {heads} {self.num_attention_heads}")
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def first_position(self) -> int:
        """The row of the positions' table that a text's first token takes."""
        return 0

    @property
    def positions(self) -> int:
        """How many tokens a text can have."""
        return self.max_position_embeddings - self.first_position

    @property
    def projects(self) -> bool:
        """Whether a linear map leads from the embeddings to the hidden states."""
        return self.embedding_size != self.hidden_size

    @property
    def head_dropout(self) -> float:
        """Dropout rate before the classifier (Hugging Face: `classifier_dropout` of families that have it, else the hidden
        rate)."""
        own = getattr(self, _OF_CLASSIFIER, None)
        return self.hidden_dropout_prob if own is None else own

    @property
    def attention_output_dropout(self) -> float:
        """Dropout rate of what the attention adds."""
        return self.hidden_dropout_prob

    @property
    def output_dropout(self) -> float:
        """Dropout rate of what the feed-forward part adds."""
        return self.hidden_dropout_prob

    @property
    def inner_dropout(self) -> float:
        """Dropout rate inside of the feed-forward part."""
        return 0.0

    @property
    def token_head_dropout(self) -> float:
        """Dropout rate before the last map of a head of each token: of the places of answers none, as in transformers."""
        return 0.0 if self._classifier == SPANS else self.head_dropout

    @property
    def pooler_activation(self) -> str:
        """What the pooler ends with: `tanh`, the hyperbolic tangent itself, or one of the `ACTIVATIONS`."""
        return self.family.pooler_activation

    @property
    def before_pooler_dropout(self) -> float:
        """Dropout rate before the pooler."""
        return self.head_dropout if self.family.pooler_dropout else 0.0

    @property
    def distance_terms(self) -> frozenset[str]:
        """The terms of one place's content and the distance to the other that the scores have (He et al. 2021, section 3.1), by
        the role of what maps the distance: `distance_key`, `distance_query`; without such a part it is the key's or query's."""
        return frozenset()

    @property
    def score_terms(self) -> int:
        """By how many terms the scores are scaled, that of both contents among them."""
        return 1

    @property
    def averages_tokens(self) -> bool:
        """Whether the classifier sees the mean of the tokens' states, instead of the first one's."""
        return False

    @property
    def words_act(self) -> str:
        """Activation of the head that predicts words."""
        return self.family.words_activation or self.hidden_act

    def window(self, layer: int) -> int | None:
        """How many tokens layer `layer` (from 0) sees on each side; None: all."""
        return None

    def rotary_base(self, layer: int) -> float | None:
        """The base of the angles by which queries and keys of layer `layer` (from 0) are rotated; None: they are not."""
        return None

    def sees_all(self, layer: int) -> bool:
        """Whether each token sees all others in layer `layer` (from 0)."""
        return not self.family.block.causal and self.window(layer) is None

    @property
    def relu_before_classifier(self) -> bool:
        """Whether there is a ReLU between pooler and classifier."""
        return False

    def answering(self, head: AnswerHead) -> EncoderConfig:
        """The same model with another classifier."""
        found = self.model_copy()
        found._classifier = head
        return found

    def embedding(self, pooling: Pooling) -> EncoderConfig:
        """The same model as one that embeds texts."""
        found = self.answering(EMBEDDINGS)
        found._pooling = pooling
        return found

    @property
    def pooling(self) -> Pooling | None:
        """How it makes a vector of a text; None of a model that does not."""
        return self._pooling

    @property
    def classifier(self) -> AnswerHead:
        """The head that its logits come from; no key of a config.json, whose `architectures` tells it."""
        return self._classifier

    def with_dropout(self, rate: float) -> EncoderConfig:
        """The same model with every dropout rate set to `rate`."""
        rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), rate)
        own = {_OF_CLASSIFIER: None} if _OF_CLASSIFIER in type(self).model_fields else {}
        return self.model_copy(update=rates | own)


class OneWidthConfig(EncoderConfig):
    """That of a Transformer whose embeddings are as wide as its hidden states, so that no key says how wide they are."""

    @property
    def embedding_size(self) -> int:
        """Width of the embeddings."""
        return self.hidden_size


def initial_tensor(name: str, shape: tuple[int, ...], standard_deviation: float, seed: int) -> np.ndarray:
    """A new float32 tensor of a map or table as Google's BERT draws it: truncated normal at two deviations, biases 0.

    Each tensor has its own random stream, made from `seed` and its name: the same name gets the same values on every
    backend, and a layer more or less does not change the others.
    """
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape, np.float32)
    outside = np.abs(values) > 2
    while outside.any():
        values[outside] = generator.standard_normal(int(outside.sum()), np.float32)
        outside = np.abs(values) > 2
    return values * np.float32(standard_deviation)
