"""crossdistil: one distillation recipe, executed on PyTorch, OneFlow and MindSpore.

The functions here are the command line's verbs. Importing this package imports no framework.
"""

from typing import TYPE_CHECKING

from .core.errors import CrossdistilError

if TYPE_CHECKING:  # for editors and type checkers; at run time each name is loaded when it is asked for
    from .core.app.api import convert, crosscheck, evaluate, inspect, predict, run

__version__ = "0.1.0"
__all__ = ["CrossdistilError", "convert", "crosscheck", "evaluate", "inspect", "predict", "run"]


def __getattr__(name: str):
    if name in __all__:
        from .core.app import api

        return getattr(api, name)
    raise AttributeError(f"module 'crossdistil' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
