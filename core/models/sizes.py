"""Sizes of an encoder that its tensors prove, beside those that its configuration says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..shown import plain, shown
from .families import CONFIGURATIONS
from .known_families import encoder_families, of_families
from .tree import layer_template, size_places

_WIDTHS = frozenset("hidden_size dim n_embd num_attention_heads n_heads n_head".split())
"""A configuration with none of them tells of no model."""
_ENOUGH, _DEPTH = 3, 4
"""So many of them look like a configuration; it is looked for so deep."""


@of_families
def _size_keys() -> frozenset[str]:
    """The keys that tell a size, of any family."""
    encoders = [CONFIGURATIONS[kind] for kind in encoder_families()]
    return _WIDTHS.union(*map(size_places, encoders), (chosen.own_key("num_hidden_layers") for chosen in encoders))


def sizes(family: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """What the tensors say of the configuration. Flat tensors, whose shape is not in their file, say nothing."""
    found = {}
    chosen = CONFIGURATIONS[family]
    for key, (name, axis) in size_places(chosen).items():
        shape = shapes.get(name, ())
        flat = name.endswith("embeddings.weight") and len(shape) != 2
        if len(shape) > axis and not flat:
            found[key] = shape[axis]
    if not chosen.family.shares_layers:
        key, prefix = chosen.own_key("num_hidden_layers"), layer_template(chosen.family).partition("{}")[0]
        layers = {name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)}
        numbers = {int(layer) for layer in layers if layer.isdecimal() and len(layer) < 10}
        if numbers:
            found[key] = max(numbers) + 1
    return found


def differences(said: Mapping[str, Any], family: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Any, int]]:
    """Key -> (what a configuration says, what the tensors say), where the two differ; `said` has the family's own keys."""
    pairs = {key: (said.get(key), size) for key, size in sizes(family, shapes).items()}
    return {key: pair for key, pair in pairs.items() if pair[0] not in (None, pair[1])}  # None follows from another size


def difference_lines(wrong: Mapping[str, tuple[Any, int]], where: str) -> list[str]:
    """A line for each of the `differences`; `where` names the file of the configuration."""
    return [f"{where}: {key} is {shown(told)}, the tensors say {size}" for key, (told, size) in wrong.items()]


def proposed(family: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The configuration as far as it can be read off the tensors, as JSON: the number of attention heads is in none."""
    heads = CONFIGURATIONS[family].own_key("num_attention_heads")
    return json.dumps({"model_type": family, **sizes(family, shapes), heads: None}).replace("null", "<number>")


def without_sizes(raw: Mapping[str, Any], family: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What is wrong with a configuration that does not say how wide the model is, where one of its keys holds what looks like a
    configuration, or the tensors do not have the family's default sizes, or that leaves only the number of attention heads to
    the default, which is of another width; else an empty string."""
    defaults = {key: field.default for key, field in CONFIGURATIONS[family].model_fields.items()}
    if not _WIDTHS.isdisjoint(raw):
        return _without_heads(raw, family, differences(defaults, family, shapes), defaults)
    nested = next(_nested(raw, ()), None)
    if nested is None and not differences(defaults, family, shapes):
        return ""
    missing = f"none of the model's sizes is in it ({', '.join(sizes(family, shapes))})"
    if nested is None:
        return f"{missing}; expected a configuration, for example {proposed(family, shapes)}"
    return f"{missing}; what its key {plain('.'.join(nested))} holds looks like a configuration: make that the whole file"


def _without_heads(
    raw: Mapping[str, Any], family: str, unusual: Mapping[str, tuple[Any, int]], defaults: Mapping[str, Any]
) -> str:
    known = CONFIGURATIONS[family].own_key
    heads, width = known("num_attention_heads"), known("hidden_size")
    if width not in unusual or not raw.keys().isdisjoint({heads, "num_attention_heads"}):
        return ""
    default, size = unusual[width]
    return f"{heads} is not in it, no tensor tells it, and the default, {defaults[heads]}, is of width {default}, not {size}"


def _nested(tree: Mapping[str, Any], way: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The ways to what looks like a configuration inside of a JSON object."""
    for key, value in tree.items():
        if isinstance(value, dict):
            if len(_size_keys() & value.keys()) >= _ENOUGH:
                yield (*way, key)
            elif len(way) < _DEPTH:
                yield from _nested(value, (*way, key))
