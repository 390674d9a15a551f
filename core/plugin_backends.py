"""A backend that a plugin registers: its engine, and the Python that has its framework."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import PluginError
from .plain_names import expanded
from .registered import RegisteredBackend
from .registering import caller, checked_name, record
from .shown import shown

_TAKEN = ("torch", "oneflow", "mindspore", "tensorflow", "onnx", "openvino", "pt2", "aoti", "mindir")
"""Names of backends and runtimes that results have already."""
_MODULE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"


def register_backend(
    name: str,
    engine: Callable[..., Any],
    *,
    framework: str,
    python: str | os.PathLike[str] | None = None,
    devices: str = "cpu",
    precisions: str = "fp32",
) -> Callable[..., Any]:
    """Make a backend usable as `--backend NAME`, and in `crosscheck`, `check` and `latency`.

    `engine(options)` is given `core.engine.EngineOptions` and returns what `core.engine.Engine` describes; its `name` becomes
    that of the backend. It is called in the Python that has the module `framework`, which is imported in it alone: the plugin
    itself is loaded in others too. That Python is `python`, or that of CROSSDISTIL_PYTHON_NAME, the one that runs, or one of the
    virtual environments of the checkout. `devices` and `precisions` are words for people. It runs in one process. Raises
    PluginError.
    """
    module, place = caller()
    what = f"{place}: backend '{checked_name(name, 'backend', place, _TAKEN)}'"
    if re.search(r"-\d+$", name):
        raise PluginError(f"{what}: ends in a number, as the runs of a cross-check in several processes do; choose another name")
    if not callable(engine) or len(inspect.signature(engine).parameters) != 1:
        raise PluginError(f"{what}: expected a function (options), got {shown(engine, 60)}")
    if not isinstance(framework, str) or not re.fullmatch(_MODULE, framework):
        raise PluginError(f"{what}: framework: got {shown(framework, 60)}, expected the name of a module, like 'torch'")
    for key, value in (("devices", devices), ("precisions", precisions)):
        if not isinstance(value, str) or not value.isprintable():
            raise PluginError(f"{what}: {key}: got {shown(value, 60)}, expected words, like 'cpu, cuda'")
    if python is not None and not isinstance(python, str | os.PathLike):
        raise PluginError(f"{what}: python: got {shown(python, 60)}, expected the path of an interpreter")
    own = None if python is None else expanded(Path(python)).absolute()
    record(module, RegisteredBackend(name, place, engine, framework, own, devices, precisions))
    return engine
