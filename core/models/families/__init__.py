"""The families of models, one a module of this folder: configuration, tree of tensors, and what differs in its layers. A new one
is a module here and nothing else (docs/families.md): its configurations are the classes that say `family`."""

from __future__ import annotations

import importlib
import pkgutil

from ..spec import ModelConfig


def _found() -> list[type[ModelConfig]]:
    """The configurations of all modules: the Transformers, of which BERT is the first, and then others."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    own = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and "family" in vars(value)
    ]
    return sorted(own, key=lambda chosen: (not chosen.family.is_encoder, chosen.family.model_type != "bert"))


CONFIGURATIONS: dict[str, type[ModelConfig]] = {chosen.family.model_type: chosen for chosen in _found()}
"""`model_type` of a config.json -> its configuration; plugins add theirs (`core.models.known_families`)."""
