"""crossdistil: one distillation recipe, executed on PyTorch, OneFlow and MindSpore.

The functions here are the command line's verbs. Importing this package imports no framework.
"""

from .core.errors import CrossdistilError

__version__ = "0.1.0"
__all__ = ["CrossdistilError", "convert", "crosscheck", "evaluate", "inspect", "predict", "run"]


def __getattr__(name: str):
    if name in __all__:
        from .core.app import api

        return getattr(api, name)
    raise AttributeError(f"module 'crossdistil' has no attribute {name!r}")
