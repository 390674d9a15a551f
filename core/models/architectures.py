"""Which architecture a configuration is: everything else asks here, and need not know that there is more than one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import bert, bilstm, spec
from .bert import Forward
from .bilstm import BiLstmConfig
from .outputs import LOGITS
from .spec import BertConfig

Config = BertConfig | BiLstmConfig

CONFIGURATIONS: dict[str, type[BertConfig] | type[BiLstmConfig]] = {"bert": BertConfig, "bilstm": BiLstmConfig}
"""`model_type` of a config.json -> its configuration."""


def model_type(config: Config) -> str:
    """`bert` or `bilstm`."""
    return "bilstm" if isinstance(config, BiLstmConfig) else "bert"


def config_from(raw: Mapping[str, Any]) -> Config:
    """The configuration in a `config.json`, BERT's where no `model_type` is given. KeyError with an unknown one, pydantic's
    ValidationError with a wrong entry."""
    return CONFIGURATIONS[raw.get("model_type", "bert")](**spec.config_keys(dict(raw)))


def tensor_shapes(config: Config, outputs: int | None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a model with `outputs` logits, or of one without classifier."""
    if isinstance(config, BiLstmConfig):
        return bilstm.tensor_shapes(config, outputs)
    return spec.tensor_shapes(config, outputs)


def new_tensor(config: Config, name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A tensor of a new model."""
    if isinstance(config, BiLstmConfig):
        return bilstm.new_tensor(config, name, shape, seed)
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
