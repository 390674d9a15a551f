"""Which architecture a configuration is: everything else asks here, and need not know that there is more than one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from . import encoder, heads, tree
from .answer_heads import SENTENCES, head_of
from .config_keys import USUAL_KEYS, own_keys
from .encoder import Forward
from .families import CONFIGURATIONS, bilstm
from .head_classes import is_of_head
from .outputs import LOGITS
from .parts import CLASSIFIER, POOLER, Part
from .spec import EncoderConfig, ModelConfig

Config = ModelConfig

_TABLES = {"words": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings"}
"""Role of a table of embeddings -> what recipes call it."""


def model_type(config: Config) -> str:
    """The key of `CONFIGURATIONS`."""
    return config.family.model_type


def is_encoder(config: Config) -> bool:
    """Whether it is a Transformer, with layers and hidden states that can be matched."""
    return config.family.is_encoder


def takes_types(config: Config) -> bool:
    """Whether the second text of a pair may have a token type of its own."""
    return getattr(config, "type_vocab_size", 0) > 1


def config_from(raw: Mapping[str, Any]) -> Config:
    """The configuration in a `config.json`, BERT's where no `model_type` is given. KeyError with an unknown one, pydantic's
    ValidationError with a wrong entry."""
    chosen = CONFIGURATIONS[raw.get("model_type", "bert")]
    if chosen.family.others_write:
        return chosen(**own_keys(raw, chosen))
    # An unknown key is a mistake.
    return chosen(**{key: value for key, value in raw.items() if key not in USUAL_KEYS - chosen.model_fields.keys()})


def tensor_shapes(config: Config, outputs: int | None, words: bool = False) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a model with `outputs` logits, or of one without classifier; with `words`, of one
    that also predicts words."""
    return tree.tensor_shapes(config, outputs) | (heads.words_shapes(config) if words else {})


def shares_layers(config: Config) -> bool:
    """Whether several layers are the same tensors."""
    return config.family.shares_layers


def layer_sources(config: Config, source: Config, layers: tuple[int, ...]) -> dict[str, str]:
    """Prefix of each layer of `config` -> that of the layer of `source`, of the same kind, that is layer `layers[i]` there."""
    pairs = [(config.layer_prefixes(own), source.layer_prefixes(taken)) for own, taken in enumerate(layers)]
    return {own: taken for owns, takens in pairs for own, taken in zip(owns, takens, strict=True)}


def head_names(config: Config) -> tuple[str, str]:
    """Names of the classifier's last weight and bias: what another task has other sizes of."""
    return next(_weight_and_bias(part) for part in tree.present(config, CLASSIFIER) if part.role == "classifier")


def pooler_names(config: Config) -> tuple[str, ...]:
    """Names of the tensors before those, which a pretrained checkpoint may lack too."""
    return tuple(name for part in tree.present(config, POOLER) for name in part.tensors(config))


def _weight_and_bias(part: Part) -> tuple[str, str]:
    return f"{part.name}.weight", f"{part.name}.bias"


def part_of(config: Config, name: str) -> str:
    """The part of the model that a tensor belongs to: embeddings, encoder, pooler, classifier or words."""
    return tree.places(config).get(name, "encoder")


def is_frozen(config: Config, name: str, freeze: Collection[str]) -> bool:
    """Whether a tensor belongs to one of the parts, or is one of the tables of embeddings, that are named in `freeze`."""
    roles = config.family.by_role
    tables = (roles[role].name for role, table in _TABLES.items() if table in freeze and role in roles)
    return part_of(config, name) in freeze or name.removesuffix(".weight") in tables


def canonical_names(config: Config, names: Iterable[str], words: bool = False) -> dict[str, str]:
    """Name in a file -> our name, for those of `names` that may belong to a classifier. Encoders are written without their
    first part in their own classes' files; position numbers, what nothing is computed with and the heads of pre-training are left
    out, but with `words` the one that predicts words."""
    if not config.family.others_write:
        return {name: name for name in names}
    root, shapes_of_heads = config.family.root, heads.head_shapes(config)
    unused = tree.unused_shapes(config)
    own_names = (*tree.tensor_shapes(config, None), *unused)
    parts = {own.removeprefix(root).split(".")[0] for own in own_names if own.startswith(root)}
    of_classifier = tree.tensor_shapes(config, 1)
    of_heads = [*(own for shapes in shapes_of_heads.values() for own in shapes), *heads.decoders(config).values()]
    foreign = {own.split(".")[0] + "." for own in of_heads if own not in of_classifier}
    not_ours = (f"{root}embeddings.position_ids", *unused, *foreign, *_left_out_pooler(config), *tree.buffers(config))
    canonical = {name: root + name if name.split(".")[0] in parts else name for name in names}
    kept = frozenset(decoder_names(config)) | heads.words_shapes(config).keys() if words else frozenset()
    return {name: own for name, own in canonical.items() if own in kept or not own.startswith(not_ours)}


def _left_out_pooler(config: Config) -> tuple[str, ...]:
    """The pooler's names where files of a classifier of tokens may hold it, which needs none."""
    return () if tree.present(config, POOLER) else tuple(f"{part.name}." for part in config.family.at(POOLER))


def knows_names(config: EncoderConfig, names: Iterable[str], other_head: bool = False) -> bool:
    """Whether each of the names in a file has a place in the model or is left out by `canonical_names`; with `other_head`, also
    those of a head that is none of ours."""
    expected = {*tensor_shapes(config, 1, words=True), *decoder_names(config)}
    own = canonical_names(config, names, words=True).values()
    return all(name in expected or (other_head and is_of_head(name)) for name in own)


def decoder_names(config: Config) -> tuple[str, str]:
    """What files call the weight that predicts words, where it is not left out as the word embeddings, and its bias, which
    many files have twice; names that no file has where the head can have no other weight."""
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
    family = config.family
    classifier, causal = getattr(config, "classifier", SENTENCES), family.block.causal
    head = head_of(1 if not family.is_encoder else outputs, words, classifier, causal)
    return {"architectures": [family.title + head.ending], "model_type": family.model_type} | dict(family.entries)


def used_tensors(config: Config, wanted: frozenset[str]) -> frozenset[str]:
    """Names of the tensors that the `wanted` outputs depend on."""
    return tree.used_tensors(config, wanted)


def make_forward(config: Config, wanted: frozenset[str] = frozenset({LOGITS}), root: str = "") -> Forward:
    """The forward pass of a model for the `wanted` outputs, with parameters read as `params[root + name]`."""
    forward = encoder.make_forward if config.family.is_encoder else bilstm.make_forward
    return forward(config, wanted, root)
