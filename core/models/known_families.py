"""The families that there are now, this package's and those of plugins, and what is computed from all of them together.

Who knows a family by its `model_type` looks it up when it is used: a table that a module makes at its import would lack those of
plugins, which are loaded later. What is costly to compute is kept by `of_families` until a family is added.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..errors import did_you_mean
from ..shown import plain
from .families import CONFIGURATIONS
from .parts import NORM, TABLE
from .spec import ModelConfig

BUILT_IN: tuple[str, ...] = tuple(CONFIGURATIONS)
"""`model_type` of the families of this package."""

OF_PLUGIN = "family_plugin"
"""Key of `crossdistil` in a config.json."""
_Result = TypeVar("_Result")
_KEPT: list[Any] = []


def of_families(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """`functools.cache` for what follows from the families: forgotten when a plugin adds one."""
    kept = functools.cache(function)
    _KEPT.append(kept)
    return kept


def encoder_families() -> tuple[str, ...]:
    """`model_type` of the families that are Transformers."""
    return tuple(kind for kind, chosen in CONFIGURATIONS.items() if chosen.family.is_encoder)


@of_families
def is_norm(name: str) -> bool:
    """Whether a tensor of this canonical name is the weight or bias of a layer normalisation."""
    return any(chosen.family.has(NORM, name) for chosen in CONFIGURATIONS.values())


@of_families
def is_table(name: str) -> bool:
    """Whether a tensor of this canonical name is a table whose rows are looked up."""
    return any(chosen.family.has(TABLE, name) for chosen in CONFIGURATIONS.values())


def token_families() -> tuple[str, ...]:
    """`model_type` of the families that have a classifier of tokens here, in alphabetical order."""
    return tuple(sorted(kind for kind, chosen in CONFIGURATIONS.items() if chosen.family.classifies_tokens))


def answer_families() -> tuple[str, ...]:
    """`model_type` of the families that have a head for the places of answers here, in alphabetical order."""
    return tuple(kind for kind in token_families() if CONFIGURATIONS[kind].family.answers_questions)


def plugin_entry(config: ModelConfig) -> dict[str, Any]:
    """What a model's config.json says of the plugin that its family is from; nothing of this package's."""
    return {OF_PLUGIN: {"plugin": config.plugin, "sha256": config.code}} if config.code else {}


def plugin_hint(model_type: object, raw: Mapping[str, Any] | None = None) -> str:
    """What to say of a `model_type` that is not known: which one it may be, or which plugin brings it, by the configuration
    where that says so."""
    named = _named(raw).get("plugin")
    if isinstance(named, str):
        return f"; its family is of the plugin {plain(named)}: --plugin {plain(named)}, or `plugins` of a recipe"
    near = did_you_mean(str(model_type)[:60], CONFIGURATIONS)
    return near or "; a family of a plugin needs --plugin FILE, or `plugins` of a recipe"


def other_code(raw: Mapping[str, Any], config: ModelConfig) -> str:
    """What to say where a model was written with other code of its family's plugin; else an empty string."""
    written = _named(raw).get("sha256")
    if not isinstance(written, str) or written == config.code:
        return ""
    now = f"SHA-256 {config.code[:12]}..." if config.code else "a family of this package"
    return f"was written with SHA-256 {plain(written[:12])}... of the plugin of its family, which is {now} now"


def _named(raw: Mapping[str, Any] | None) -> Mapping[str, Any]:
    about = (raw or {}).get("crossdistil")
    found = about.get(OF_PLUGIN) if isinstance(about, dict) else None
    return found if isinstance(found, dict) else {}


def family_code() -> str:
    """Changes with the code of the families that plugins have brought; empty without any."""
    return "".join(sorted(chosen.code for chosen in CONFIGURATIONS.values()))


def add_families(configurations: Iterable[type[ModelConfig]]) -> None:
    """Make families of plugins known to this process, in place of others of the same `model_type`, which are plugins' too."""
    added = {chosen.family.model_type: chosen for chosen in configurations}
    if any(CONFIGURATIONS.get(kind) is not chosen for kind, chosen in added.items()):
        CONFIGURATIONS.update(added)
        _forget()


def restore_families(configurations: Mapping[str, type[ModelConfig]]) -> None:
    """Know these families, a copy of `CONFIGURATIONS` that was made before, and no others."""
    CONFIGURATIONS.clear()
    CONFIGURATIONS.update(configurations)
    _forget()


def _forget() -> None:
    for kept in _KEPT:
        kept.cache_clear()
