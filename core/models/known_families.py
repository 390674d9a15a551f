"""The families that there are now, this package's and those of plugins, and what is computed from all of them together.

Who knows a family by its `model_type` looks it up when it is used: a table that a module makes at its import would lack the families
of plugins, which are loaded later. What is costly to compute is kept by `of_families` until a family is added.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from .families import CONFIGURATIONS
from .spec import ModelConfig

BUILT_IN: tuple[str, ...] = tuple(CONFIGURATIONS)
"""`model_type` of the families of this package."""

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
