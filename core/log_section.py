"""The recipe's `log`: where a run is followed beside its own folder, `[tensorboard]` or `{wandb: {project: distil}}`.

It changes nothing in what is trained, and is no part of the recipe's digest: a run goes on with another `log` than it began with.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, create_model, field_validator, model_validator

from .registered import RegisteredSink
from .section import Section, absolute
from .shown import shown


class TensorBoardSection(Section):
    """TensorBoard's event files."""

    folder: Path | None = None
    """Where they are written; None is logs/tensorboard in the run folder."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else absolute(value)


class WandbSection(Section):
    """Weights & Biases. Its key is never part of a recipe: `wandb login`, or WANDB_API_KEY."""

    project: str = Field("crossdistil", min_length=1, max_length=128)
    """The project that the run is listed in."""
    name: str | None = Field(None, min_length=1, max_length=128)
    """The run's name; None is that of the run folder."""
    entity: str | None = None
    """The user or team; None is the account's default."""
    offline: bool = False
    """Write to logs/wandb in the run folder only, from where `wandb sync` uploads."""


class MlflowSection(Section):
    """MLflow. A password is never part of a recipe: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""

    uri: str | None = Field(None, min_length=1)
    """The tracking server, database or folder; None is MLFLOW_TRACKING_URI, or MLflow's own default."""
    experiment: str = Field("crossdistil", min_length=1)
    """The experiment that the run is listed in; it is made where there is none of that name."""
    name: str | None = Field(None, min_length=1)
    """The run's name; None is that of the run folder."""

    @field_validator("uri")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).password:
            raise ValueError("holds a password, which recipe.yaml would keep; set MLFLOW_TRACKING_URI instead")
        return value


class SwanlabSection(Section):
    """SwanLab. Its key is never part of a recipe: `swanlab login`, or SWANLAB_API_KEY."""

    project: str = Field("crossdistil", min_length=1, max_length=100)
    """The project that the run is listed in."""
    name: str | None = Field(None, min_length=1, max_length=128)
    """The run's name; None is that of the run folder."""
    workspace: str | None = None
    """The user or team; None is the account's default."""
    offline: bool = False
    """Write to logs/swanlab in the run folder only, from where `swanlab sync` uploads."""


class LogSection(Section):
    """The sinks by name; None is one that is not asked for. Plugins add theirs (`log_type`)."""

    tensorboard: TensorBoardSection | None = None
    """Event files for TensorBoard."""
    wandb: WandbSection | None = None
    """A run of Weights & Biases."""
    mlflow: MlflowSection | None = None
    """A run of MLflow."""
    swanlab: SwanlabSection | None = None
    """An experiment of SwanLab."""

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        return named_sinks(value)

    @property
    def asked(self) -> dict[str, Section]:
        """The sinks that a run has, by name, with their settings."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: settings for name, settings in found.items() if settings is not None}


def named_sinks(value: Any) -> Any:
    """`[tensorboard, {wandb: {project: x}}]` and `{tensorboard: null}` as name -> settings; what is neither is left to the
    errors of a recipe. Raises ValueError for what is no list of sinks."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        found: dict[str, Any] = {}
        for item in value:
            one = {item: None} if isinstance(item, str) else item
            if not isinstance(one, dict) or len(one) != 1 or not all(isinstance(name, str) for name in one):
                raise ValueError(f"got {shown(item)}, expected the name of a sink, or one with its settings, like wandb: {{...}}")
            found |= one
        value = found
    return {name: {} if own is None else own for name, own in value.items()} if isinstance(value, dict) else value


def with_sinks(value: Any, names: Sequence[str]) -> Any:
    """A recipe's `log` with these sinks too, their settings as the recipe has them, if it has."""
    try:
        found = named_sinks(value)
    except ValueError:
        return value
    return {**{name: {} for name in names}, **found} if isinstance(found, dict) else value


def log_type(sinks: Iterable[RegisteredSink]) -> type[LogSection]:
    """`LogSection` with the sinks of plugins too, whose settings are the arguments of what makes them."""
    fields = {sink.name: (_settings_type(sink) | None, None) for sink in sinks}
    return create_model("LogSection", __base__=LogSection, **fields) if fields else LogSection


def _settings_type(sink: RegisteredSink) -> type[Section]:
    fields: dict[str, Any] = {}
    extra = "forbid"
    for name, parameter in inspect.signature(sink.make).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            fields[name] = (Any, ... if parameter.default is parameter.empty else parameter.default)
    config = ConfigDict(**(Section.model_config | {"extra": extra}))
    base = type("Settings", (Section,), {"model_config": config, "__module__": __name__, "__doc__": "Of a plugin's sink."})
    return create_model(f"{sink.name.capitalize()}Settings", __base__=base, **fields)
