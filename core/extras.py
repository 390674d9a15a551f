"""Packages that only some commands need: each is asked for before any work is done, and what is missing is one line that
says how to install it."""

from __future__ import annotations

import importlib.util
import sys

from .errors import BackendError

_EXTRAS = {
    "augment": ("textblob",),
    "chinese": ("jieba",),
    "data": ("pyarrow",),
    "hub": ("huggingface_hub",),
    "mlflow": ("mlflow",),
    "onnx": ("onnxruntime",),
    "openvino": ("openvino", "nncf"),
    "picture": ("matplotlib",),
    "serve": ("onnxruntime", "fastapi", "uvicorn", "prometheus_client"),
    "swanlab": ("swanlab",),
    "wandb": ("wandb",),
}
"""Extra of pyproject.toml -> the modules that come with it. tests/test_extras.py holds the two together."""


def require(extra: str, where: object, *modules: str) -> None:
    """Check that the modules of an extra, or those of them that are named, can be imported; imports nothing. Raises
    BackendError that begins with `where`, the file, option or command that asks."""
    missing = [name for name in modules or _EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendError(f"{where}: needs {', '.join(missing)} in {sys.executable}: {install(extra)}")


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'crossdistil[{extra}]'"
