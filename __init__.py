"""crossdistil: one distillation recipe, executed on PyTorch, OneFlow and MindSpore.

The functions here are the command line's verbs, and what plugins are written with (`core.plugins`). Importing this package
imports no framework.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; at run time each name is loaded when it is asked for
    from .core.app.api import convert, crosscheck, evaluate, inspect, predict, run
    from .core.errors import CrossdistilError
    from .core.events import Sink
    from .core.kinds.kind import Kind
    from .core.losses.base import LossTerm, TermContext, sum_rows, token_mask
    from .core.plugin_backends import register_backend
    from .core.plugin_families import register_family
    from .core.plugin_kinds import register_kind
    from .core.plugins import (
        register_loss,
        register_metric,
        register_optimizer,
        register_schedule,
        register_sink,
        register_task,
    )

__version__ = "0.1.0"
__all__ = [
    "CrossdistilError",
    "Kind",
    "LossTerm",
    "Sink",
    "TermContext",
    "convert",
    "crosscheck",
    "evaluate",
    "inspect",
    "predict",
    "register_backend",
    "register_family",
    "register_kind",
    "register_loss",
    "register_metric",
    "register_optimizer",
    "register_schedule",
    "register_sink",
    "register_task",
    "run",
    "sum_rows",
    "token_mask",
]
_PLACES = {
    "CrossdistilError": "errors",
    "Kind": "kinds.kind",
    "LossTerm": "losses.base",
    "Sink": "events",
    "TermContext": "losses.base",
    "register_backend": "plugin_backends",
    "register_family": "plugin_families",
    "register_kind": "plugin_kinds",
    "register_loss": "plugins",
    "register_metric": "plugins",
    "register_optimizer": "plugins",
    "register_schedule": "plugins",
    "register_sink": "plugins",
    "register_task": "plugins",
    "sum_rows": "losses.base",
    "token_mask": "losses.base",
}
"""Where the other names are in `core`: what plugins are written with, and the errors."""


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module(f".core.{_PLACES.get(name, 'app.api')}", __name__), name)
    raise AttributeError(f"module 'crossdistil' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
