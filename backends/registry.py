"""Which backends there are, which Python interpreter has each, and how to load one. Nothing here imports a framework.

OneFlow and MindSpore cannot share an environment, so a backend that this interpreter lacks is looked for in others: the
one that `CROSSDISTIL_PYTHON_<BACKEND>` names, then the virtual environments of the checkout.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..core.engine import Engine, EngineOptions
from ..core.errors import BackendError, Errors, did_you_mean
from ..core.processes import code_command
from ..core.threads import set_up

_CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Backend:
    """A framework and where its adapter is."""

    name: str
    engine: str
    """Class in `backends/<name>/engine.py`."""
    devices: str
    precisions: str
    launcher: str
    """The framework's own, which starts a program several times."""

    @property
    def here(self) -> bool:
        """Whether this interpreter can import the framework."""
        return importlib.util.find_spec(self.name) is not None

    @property
    def install(self) -> str:
        """How to get it."""
        return f"make environments BACKENDS={self.name} in a checkout, or pip install 'crossdistil[{self.name}]'"


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("torch", "TorchEngine", "cpu, cuda, npu (with torch_npu)", "fp32, bf16; fp16 on cuda and npu", "torchrun"),
        Backend("oneflow", "OneFlowEngine", "cpu, cuda", "fp32", "python -m oneflow.distributed.launch"),
        Backend("mindspore", "MindSporeEngine", "cpu, ascend", "fp32; bf16 on ascend", "msrun"),
    )
}


def backend_named(name: str) -> Backend:
    """The backend of that name; raises BackendError with the nearest one."""
    if name not in BACKENDS:
        near = did_you_mean(name, BACKENDS) or f"; there are {', '.join(BACKENDS)}"
        raise BackendError(f"unknown backend '{name}'{near}")
    return BACKENDS[name]


def interpreters(names: Sequence[str]) -> dict[str, Path]:
    """The Python of each backend; raises CrossdistilError for all that are unknown, named twice or not installed."""
    errors = Errors()
    if not names:
        errors.append(BackendError(f"no backend is named; there are {', '.join(BACKENDS)}"))
    errors += [BackendError(f"backend '{name}': named twice") for name in BACKENDS if names.count(name) > 1]
    found = {name: errors.collect(interpreter, name) for name in dict.fromkeys(names)}
    errors.throw()
    return found


def default_backend() -> str:
    """The first backend that this interpreter has."""
    for backend in BACKENDS.values():
        if backend.here:
            return backend.name
    raise BackendError(f"no backend is installed in {sys.executable}; for example: {BACKENDS['torch'].install}")


def load_engine(name: str, options: EngineOptions) -> Engine:
    """The engine of a backend that this interpreter has. Raises BackendError where the launcher is not for that backend: msrun
    has no variables that others could meet by, and torchrun listens itself at the port where MindSpore would."""
    launcher = options.place.launcher
    if (launcher == "msrun") != (name == "mindspore") and launcher in ("msrun", "torchrun"):
        own = backend_named(name).launcher
        raise BackendError(f"{launcher}: cannot start processes of {name}; take {own}, srun or --devices N")
    return getattr(load_module(name, "engine"), backend_named(name).engine)(options)


def load_module(name: str, module: str) -> ModuleType:
    """A module of a backend that this interpreter has."""
    backend = backend_named(name)
    if not backend.here:
        raise BackendError(f"backend '{name}': not installed in {sys.executable}; {backend.install}")
    set_up()  # before the framework is imported
    try:
        return importlib.import_module(f"..{name}.{module}", __name__)
    except (ImportError, OSError) as error:
        raise BackendError(f"backend '{name}': installed, but cannot be imported: {error}") from error


def interpreter(name: str) -> Path:
    """The Python that has a backend: this one if it can, else another; raises BackendError when there is none."""
    backend = backend_named(name)
    found = python_with(name)
    if found is None:
        raise BackendError(f"backend '{name}': not installed; {backend.install}")
    return found


def python_with(module: str) -> Path | None:
    """The Python that has a framework, which need not be a backend: this one if it can, else another, else None."""
    if importlib.util.find_spec(module) is not None:
        return Path(sys.executable)
    return next((candidate for candidate in _candidates(module) if _has(candidate, module)), None)


def _candidates(name: str) -> list[Path]:
    named = os.environ.get(f"CROSSDISTIL_PYTHON_{name.upper()}")
    found = [Path(named)] if named else []
    found += [_CHECKOUT / folder / "bin" / "python" for folder in (f".venv-{name}", ".venv")]
    return [path for path in found if path.is_file()]


@functools.cache
def _has(python: Path, name: str) -> bool:
    program = f"import importlib.util as u; sys.exit(not (u.find_spec({name!r}) and u.find_spec('crossdistil')))"
    return subprocess.run(code_command(python, program), capture_output=True).returncode == 0
