"""A family of models that a plugin registers: one configuration with its tree of parts, as the families of this package are.

docs/plugins.md shows one whole. From then on its `model_type` is known to all that read, train, convert or export a model, in
each process that has loaded the plugin.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import ValidationError

from .errors import PluginError
from .models import heads, known_families, tree
from .models.answer_heads import CLASSIFIERS, TOKENS, AnswerHead
from .models.encoder import make_forward
from .models.outputs import ATTENTION_KINDS, LOGITS, POOLED, output_name
from .models.parts import WORDS, Family
from .models.pretraining import make_pretraining
from .models.spec import EncoderConfig
from .plugin_errors import error_text
from .recipe_errors import describe
from .registered import RegisteredFamily
from .registering import caller, checked_name, record
from .shown import shown

_TINY = {
    "vocab_size": 13,
    "embedding_size": 8,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
}
_OUTPUTS, _TEXTS, _LENGTH = 3, 2, 5
_HEADS = {head.name: head for head in CLASSIFIERS}


def register_family(configuration: type[EncoderConfig]) -> type[EncoderConfig]:
    """Make a family of models usable wherever this package's are, under its `model_type`.

    `configuration` is a subclass of `core.models.spec.EncoderConfig`: its fields are the keys of the family's `config.json`, all
    with defaults, and its `family` is the tree of named tensors (`core.models.parts`). A tiny model of it is computed once, in
    NumPy: a part that is missing, has another shape or is read by nothing is refused. Raises PluginError.
    """
    module, place = caller()
    if not (isinstance(configuration, type) and issubclass(configuration, EncoderConfig)):
        raise PluginError(f"{place}: register_family: expected a subclass of EncoderConfig, got {shown(configuration, 60)}")
    family = getattr(configuration, "family", None)
    if not isinstance(family, Family):
        expected = "expected `family`, a core.models.parts.Family"
        raise PluginError(f"{place}: register_family: {configuration.__name__}: {expected}, got {shown(family, 60)}")
    name = checked_name(family.model_type, "family", place, known_families.BUILT_IN)
    what = f"{place}: family '{name}'"
    if family.in_googles_code:
        raise PluginError(f"{what}: in_googles_code is True, expected False: Google's TensorFlow code has no model of a plugin's")
    if not family.is_encoder:
        raise PluginError(f"{what}: layer is empty, expected what a layer's tensors start with: '{family.root}layer.{{layer}}.'")
    titles = {known_families.CONFIGURATIONS[kind].family.title: kind for kind in known_families.BUILT_IN}
    if family.title in titles:
        theirs = f"that of {titles[family.title]}, as whose classes transformers would load its models"
        raise PluginError(f"{what}: title is {family.title}, {theirs}; choose another")
    if unknown := [head for head in family.own_heads if head not in _HEADS]:
        raise PluginError(f"{what}: own_heads: unknown head {shown(unknown[0])}; expected some of {', '.join(_HEADS)}")
    if not any(part.role.startswith(f"{WORDS}.") for part in family.parts):
        raise PluginError(f"{what}: parts: none is of a head that predicts words; words_parts makes them")
    names = [(part.place, name) for part in family.parts for name in part.tensors()]
    if twice := [name for place, name in names if names.count((place, name)) > 1]:
        raise PluginError(f"{what}: parts: two have a tensor {twice[0]}")
    _check_computed(configuration, what)
    record(module, RegisteredFamily(name, place, configuration))
    return configuration


def _check_computed(configuration: type[EncoderConfig], what: str) -> None:
    """Raise PluginError unless a tiny model of the family is computed from all of its tensors, and from no others."""
    try:
        configuration()  # the sizes of a model whose file does not say them
        config = configuration(**_tiny_keys(configuration))
    except ValidationError as error:
        problems = "; ".join(describe(error, configuration))
        raise PluginError(f"{what}: {problems}; all keys need defaults that fit together") from error
    try:
        read = _read(config)
    except Exception as error:
        raise PluginError(f"{what}: no forward pass follows from its parts: {error_text(error)}") from error
    if unread := [name for name in _shapes(config) if name not in read]:
        unused = "a part that others' files hold alone has the place UNUSED"
        raise PluginError(f"{what}: nothing is computed with {unread[0]}; {unused}")


def _tiny_keys(configuration: type[EncoderConfig]) -> dict[str, int]:
    keys = {configuration.own_key(name): size for name, size in _TINY.items()}
    return {key: size for key, size in keys.items() if key in configuration.model_fields}


def _shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    of_heads = [*heads.head_shapes(config).values()]
    of_heads += [tree.tensor_shapes(config.answering(head), _OUTPUTS) for head in _own_heads(config)]
    return tree.tensor_shapes(config, _OUTPUTS) | {name: shape for shapes in of_heads for name, shape in shapes.items()}


def _own_heads(config: EncoderConfig) -> list[AnswerHead]:
    """The classifiers that it has beside that of sentences."""
    family = config.family
    return [head for head in CLASSIFIERS if head.name in family.own_heads or (head == TOKENS and family.classifies_tokens)]


def _read(config: EncoderConfig) -> set[str]:
    """The names of the tensors that any output of a model reads. ValueError for outputs of other shapes than they should have."""
    from .reference import ReferenceOps  # SciPy, which nobody else needs here

    generator = np.random.default_rng(0)
    parameters = _Parameters({name: generator.normal(size=shape) for name, shape in _shapes(config).items()})
    ids, ones = generator.integers(0, config.vocab_size, (_TEXTS, _LENGTH)), np.ones((_TEXTS, _LENGTH))
    batch = {"input_ids": ids, "attention_mask": ones, "token_type_ids": np.zeros_like(ids)}
    wanted = {LOGITS, *(output_name("hidden", layer) for layer in range(config.num_hidden_layers + 1))}
    wanted |= {POOLED} if "pooler" in config.family.by_role else set()
    wanted |= {output_name(kind, 1) for kind in ATTENTION_KINDS}
    found = make_forward(config.without_dropout(), frozenset(wanted))(ReferenceOps(), parameters, batch)
    last = output_name("hidden", config.num_hidden_layers)
    expected = {LOGITS: (_TEXTS, _OUTPUTS), last: (_TEXTS, _LENGTH, config.hidden_size)}
    for output, shape in expected.items():
        if found[output].shape != shape or not math.isfinite(np.sum(found[output])):
            raise ValueError(f"{output} is {found[output].shape}, expected finite numbers {shape}")
    for head in _own_heads(config):
        forward = make_forward(config.answering(head).without_dropout(), frozenset({LOGITS}))
        found, texts = forward(ReferenceOps(), parameters, batch)[LOGITS], (_TEXTS, _LENGTH) if head.token_map else (_TEXTS,)
        if found.shape != (*texts, _OUTPUTS):
            raise ValueError(f"{LOGITS} of {head.name} are {found.shape}, expected {(*texts, _OUTPUTS)}")
    names = frozenset(heads.heads_of(config.family))
    make_pretraining(config.without_dropout(), names)(ReferenceOps(), parameters, batch)
    return parameters.read


class _Parameters(dict[str, Any]):
    """Tensors by name, which remember whether they were asked for."""

    def __init__(self, tensors: dict[str, Any]):
        super().__init__(tensors)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)
