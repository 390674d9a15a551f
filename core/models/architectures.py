"""Which architecture a configuration is: everything else asks here, and need not know that there is more than one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from . import bert, bilstm, heads, spec
from .bert import Forward
from .bilstm import BiLstmConfig
from .config_keys import USUAL_KEYS, own_keys
from .families import AlbertConfig, DistilBertConfig, ElectraConfig, sinusoids
from .head_classes import is_of_head
from .outputs import LOGITS
from .spec import BertConfig, EncoderConfig

Config = EncoderConfig | BiLstmConfig

CONFIGURATIONS: dict[str, type[EncoderConfig] | type[BiLstmConfig]] = {
    "bert": BertConfig,
    "distilbert": DistilBertConfig,
    "albert": AlbertConfig,
    "electra": ElectraConfig,
    "bilstm": BiLstmConfig,
}
"""`model_type` of a config.json -> its configuration."""


def model_type(config: Config) -> str:
    """The key of `CONFIGURATIONS`."""
    return config.model_type if isinstance(config, BiLstmConfig) else config.names.model_type


def is_encoder(config: Config) -> bool:
    """Whether it is a Transformer, with layers and hidden states that can be matched."""
    return isinstance(config, EncoderConfig)


def config_from(raw: Mapping[str, Any]) -> Config:
    """The configuration in a `config.json`, BERT's where no `model_type` is given. KeyError with an unknown one, pydantic's
    ValidationError with a wrong entry."""
    chosen = CONFIGURATIONS[raw.get("model_type", "bert")]
    if issubclass(chosen, EncoderConfig):
        return chosen(**own_keys(raw, chosen))
    # Nobody else writes this one, so that an unknown key is a mistake.
    return chosen(**{key: value for key, value in raw.items() if key not in USUAL_KEYS - chosen.model_fields.keys()})


def tensor_shapes(config: Config, outputs: int | None, words: bool = False) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a model with `outputs` logits, or of one without classifier; with `words`, of one
    that also predicts words."""
    if isinstance(config, BiLstmConfig):
        return bilstm.tensor_shapes(config, outputs)
    return spec.tensor_shapes(config, outputs) | (heads.words_shapes(config) if words else {})


def like_config(chosen: type[EncoderConfig] | type[BiLstmConfig], other: Config) -> dict[str, Any]:
    """The keys of a model of the `chosen` kind that is like another, as far as the two have the same things."""
    if issubclass(chosen, EncoderConfig) and isinstance(other, EncoderConfig) and not isinstance(other, chosen):
        return chosen.keys_like(other)
    return other.model_dump() if isinstance(other, chosen) else {}


def own_key(chosen: type[EncoderConfig] | type[BiLstmConfig], key: str) -> str:
    """The key of a kind of model for what BERT calls `key`."""
    return chosen.own_key(key) if issubclass(chosen, EncoderConfig) else key


def shares_layers(config: Config) -> bool:
    """Whether several layers are the same tensors."""
    return isinstance(config, AlbertConfig)


def layer_sources(config: Config, source: Config, layers: tuple[int, ...]) -> dict[str, str]:
    """Prefix of each layer of `config` -> that of the layer of `source`, of the same kind, that is layer `layers[i]` there."""
    pairs = [(config.layer_prefixes(own), source.layer_prefixes(taken)) for own, taken in enumerate(layers)]
    return {own: taken for owns, takens in pairs for own, taken in zip(owns, takens, strict=True)}


def head_names(config: Config) -> tuple[str, str]:
    """Names of the classifier's last weight and bias: what another task has other sizes of."""
    names = bilstm.HEAD if isinstance(config, BiLstmConfig) else config.names.classifier
    return names + ".weight", names + ".bias"


def pooler_names(config: Config) -> tuple[str, ...]:
    """Names of the tensors before those, which a pretrained checkpoint may lack too."""
    return () if isinstance(config, BiLstmConfig) else (config.names.pooler + ".weight", config.names.pooler + ".bias")


def part_of(config: Config, name: str) -> str:
    """The part of the model that a tensor belongs to: embeddings, encoder, pooler, classifier or words."""
    if isinstance(config, BiLstmConfig):
        return bilstm.PARTS[name.split(".")[0]]
    if name in heads.words_shapes(config):
        return "words"
    names = config.names
    # The most special first: ELECTRA's pooler and classifier share a prefix, ALBERT's projection is in its encoder.
    places = {names.pooler: "pooler", names.classifier: "classifier", names.projection: "embeddings"}
    found = next((part for place, part in places.items() if place is not None and name.startswith(place + ".")), None)
    return found or ("embeddings" if name.startswith(names.embeddings) else "encoder")


def is_frozen(config: Config, name: str, freeze: Collection[str]) -> bool:
    """Whether a tensor belongs to one of the parts, or is one of the tables of embeddings, that are named in `freeze`."""
    return part_of(config, name) in freeze or name.split(".")[-2] in freeze


def canonical_names(config: Config, names: Iterable[str], words: bool = False) -> dict[str, str]:
    """Name in a file -> our name, for those of `names` that may belong to a classifier. Encoders are written without their
    first part in their own classes' files; position numbers and the heads of pre-training are left out, but with `words`
    the one that predicts words."""
    if isinstance(config, BiLstmConfig):
        return {name: name for name in names}
    root, shapes_of_heads = config.names.root, heads.head_shapes(config)
    parts = {own.removeprefix(root).split(".")[0] for own in spec.tensor_shapes(config, None) if own.startswith(root)}
    foreign = {own.split(".")[0] + "." for shapes in shapes_of_heads.values() for own in shapes}
    not_ours = (config.names.embeddings + "position_ids", *foreign)
    canonical = {name: root + name if name.split(".")[0] in parts else name for name in names}
    kept = frozenset(decoder_names(config)) | heads.words_shapes(config).keys() if words else frozenset()
    return {name: own for name, own in canonical.items() if own in kept or not own.startswith(not_ours)}


def knows_names(config: EncoderConfig, names: Iterable[str], other_head: bool = False) -> bool:
    """Whether each of the names in a file has a place in the model or is left out by `canonical_names`; with `other_head`, also
    those of a head that is none of ours."""
    expected = {*tensor_shapes(config, 1, words=True), *decoder_names(config)}
    own = canonical_names(config, names, words=True).values()
    return all(name in expected or (other_head and is_of_head(name)) for name in own)


def decoder_names(config: Config) -> tuple[str, str]:
    """What files call the weight that predicts words, where it is not left out as the word embeddings, and its bias, which
    many files have twice."""
    last = heads.words_head(config).last
    return last + ".weight", last + ".bias"


def words_tensors(config: Config) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the head that predicts words."""
    return heads.words_shapes(config)


def words_bias(config: Config) -> str:
    """Our name of the bias of that head's last map."""
    return heads.words_head(config).last_bias


def word_embeddings(config: Config) -> str:
    """Name of the table of words, which is the weight of that head's last map too."""
    return heads.word_embeddings(config)


def first_keys(config: Config, outputs: int | None, words: bool = False) -> dict[str, Any]:
    """What config.json says of an architecture beside its configuration."""
    if isinstance(config, BiLstmConfig):
        return {"architectures": ["BiLstmForSequenceClassification"]}
    names = config.names
    kind = "ForMaskedLM" if words else "Model" if outputs is None else "ForSequenceClassification"
    keys: dict[str, Any] = {
        "architectures": [names.title + kind],
        "model_type": names.model_type,
    }
    return keys | ({"position_embedding_type": "absolute"} if isinstance(config, BertConfig) else {})


def new_tensor(config: Config, name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A tensor of a new model."""
    if isinstance(config, BiLstmConfig):
        return bilstm.new_tensor(config, name, shape, seed)
    if getattr(config, "sinusoidal_pos_embds", False) and name.endswith(".position_embeddings.weight"):
        return sinusoids(*shape)
    return spec.initial_tensor(name, shape, config.initializer_range, seed)


def used_tensors(config: Config, wanted: frozenset[str]) -> frozenset[str]:
    """Names of the tensors that the `wanted` outputs depend on."""
    if isinstance(config, BiLstmConfig):
        return frozenset(bilstm.tensor_shapes(config, 1)) if wanted else frozenset()
    return bert.used_tensors(config, wanted)


def make_forward(config: Config, wanted: frozenset[str] = frozenset({LOGITS}), root: str = "") -> Forward:
    """The forward pass of a model for the `wanted` outputs, with parameters read as `params[root + name]`."""
    if isinstance(config, BiLstmConfig):
        return bilstm.make_forward(config, wanted, root)
    return bert.make_forward(config, wanted, root)
