"""Which sinks there are, what each needs, and how a recipe's `log` becomes sinks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import CrossdistilError, Errors, PluginError
from ..events import Sink
from ..extras import require
from ..log_section import LogSection
from ..plugin_errors import error_text, plugin_line
from ..registered import Registered, RegisteredSink
from ..shown import shown
from .outlet import Outlet


@dataclass(frozen=True)
class KnownSink:
    """A sink of this package."""

    module: str
    """Of this folder; it is imported when a run asks for the sink."""
    kind: str
    """The class in it."""
    needs_package: bool = True
    """Whether the extra of its name must be installed (`core.extras`)."""


KNOWN = {
    "tensorboard": KnownSink("tensorboard_files", "TensorBoardFiles", needs_package=False),
    "wandb": KnownSink("wandb_runs", "WandbRun"),
    "mlflow": KnownSink("mlflow_runs", "MlflowRun"),
    "swanlab": KnownSink("swanlab_runs", "SwanlabRun"),
}
"""Name -> sink. Each name is also an extra of pyproject.toml."""


def make_sinks(log: LogSection, registered: Registered, tell: Callable[[str], None]) -> list[Outlet]:
    """The sinks that a recipe asks for, none of them started; `tell` says a line. Raises CrossdistilError with all that is
    missing or cannot be made."""
    errors, found = Errors(), []
    for name, settings in log.asked.items():
        if name in KNOWN:
            sink = errors.collect(_known, name, settings)
            files: tuple[str, ...] = ()
        else:
            own = registered.of(RegisteredSink)[name]
            sink, files = errors.collect(_plugin_s, own, settings.model_dump()), (own.file,)
        if sink is not None:
            found.append(Outlet(name, sink, tell, files))
    errors.throw()
    return found


def _known(name: str, settings: object) -> Sink:
    known = KNOWN[name]
    if known.needs_package:
        require(name, f"log.{name}")
    return getattr(importlib.import_module(f".{known.module}", __package__), known.kind)(settings)


def _plugin_s(own: RegisteredSink, settings: dict[str, object]) -> Sink:
    try:
        made = own.make(**settings)
    except CrossdistilError:
        raise
    except Exception as error:
        place = plugin_line(error, [own.file]) or own.place
        raise PluginError(f"{place}: sink '{own.name}' cannot be made: {error_text(error)}") from error
    if not isinstance(made, Sink):
        raise PluginError(f"{own.place}: sink '{own.name}' is {shown(made, 60)}, expected a crossdistil.Sink")
    return made
