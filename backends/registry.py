"""Which backends there are, which Python interpreter has each, and how to load one. Nothing here imports a framework.

OneFlow and MindSpore cannot share an environment, so a backend that this interpreter lacks is looked for in others: the
one that `CROSSDISTIL_PYTHON_<BACKEND>` names, then the virtual environments of the checkout. Plugins bring backends of their own
(`core.plugin_backends`), which are found by the same rule and run in one process.
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
from typing import TYPE_CHECKING

from ..core.collector import all_kept
from ..core.errors import BackendError, CrossdistilError, Errors, did_you_mean
from ..core.processes import code_command
from ..core.threads import set_up

if TYPE_CHECKING:  # the command line's --help names the backends, and needs nothing of this
    from ..core.engine import Engine, EngineOptions
    from ..core.registered import RegisteredBackend

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
    own: RegisteredBackend | None = None
    """What a plugin registered, of a backend that is none of this package's."""

    @property
    def module(self) -> str:
        """The framework, as it is imported."""
        return self.name if self.own is None else self.own.framework

    @property
    def here(self) -> bool:
        """Whether it runs in this interpreter."""
        return _importable(self.module) if self.own is None else self.python == Path(sys.executable)

    @property
    def python(self) -> Path | None:
        """The interpreter that it runs in, if there is one."""
        if self.own is None:
            return python_with(self.name)
        if self.own.python is not None:
            return self.own.python if self.own.python.is_file() and _has(self.own.python, self.module) else None
        return python_with(self.module, self.name)

    @property
    def install(self) -> str:
        """How to get it."""
        if self.own is not None:
            named = self.own.python or f"that of CROSSDISTIL_PYTHON_{_variable(self.name)}"
            return f"it needs a Python ({named}) with {self.module} and crossdistil, says {self.own.place}"
        return f"make environments BACKENDS={self.name} in a checkout, or pip install 'crossdistil[{self.name}]'"


_PARTS_OF_ENGINE = (
    "device precision length_step compilations ops threads place kernels keep_kernels total versions peak_memory_mb "
    "out_of_memory load_frozen train_step gradients infer"
).split()
"""Of `core.engine.Engine`."""

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("torch", "TorchEngine", "cpu, cuda, npu (with torch_npu)", "fp32, bf16; fp16 on cuda and npu", "torchrun"),
        Backend("oneflow", "OneFlowEngine", "cpu, cuda", "fp32", "python -m oneflow.distributed.launch"),
        Backend("mindspore", "MindSporeEngine", "cpu, ascend", "fp32; bf16 on ascend", "msrun"),
    )
}


def known_backends() -> dict[str, Backend]:
    """Name -> backend: this package's, and those of the plugins that this process has loaded."""
    from ..core.registered import BACKENDS as OF_PLUGINS

    own = (Backend(each.name, "", each.devices, each.precisions, "", each) for each in OF_PLUGINS.values())
    return BACKENDS | {backend.name: backend for backend in own}


def backend_named(name: str) -> Backend:
    """The backend of that name; raises BackendError with the nearest one."""
    known = known_backends()
    if name not in known:
        near = did_you_mean(name, known) or f"; there are {', '.join(known)}; a plugin's needs --plugin FILE"
        raise BackendError(f"unknown backend '{name}'{near}")
    return known[name]


def interpreters(names: Sequence[str]) -> dict[str, Path]:
    """The Python of each backend; raises CrossdistilError for all that are unknown, named twice or not installed."""
    errors = Errors()
    if not names:
        errors.append(BackendError(f"no backend is named; there are {', '.join(known_backends())}"))
    errors += [BackendError(f"backend '{name}': named twice") for name in known_backends() if names.count(name) > 1]
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
    own = backend_named(name).own
    if own is not None:
        return _engine_of_plugin(own, options)
    launcher = options.place.launcher
    if (launcher == "msrun") != (name == "mindspore") and launcher in ("msrun", "torchrun"):
        right = backend_named(name).launcher
        raise BackendError(f"{launcher}: cannot start processes of {name}; take {right}, srun or --devices N")
    return getattr(load_module(name, "engine"), backend_named(name).engine)(options)


def _engine_of_plugin(own: RegisteredBackend, options: EngineOptions) -> Engine:
    from ..core.plugin_errors import error_text, plugin_line

    if options.place.size > 1:
        raise BackendError(f"backend '{own.name}': is a plugin's ({own.place}), which runs in one process; leave --devices out")
    _require(backend_named(own.name))
    set_up()
    try:
        engine = own.make(options)
        engine.name = own.name
    except CrossdistilError:
        raise
    except Exception as error:
        where = plugin_line(error, [own.file]) or own.place
        raise BackendError(f"{where}: backend '{own.name}': makes no engine: {error_text(error)}") from error
    missing = [part for part in _PARTS_OF_ENGINE if not hasattr(engine, part)]
    if missing:
        what = f"its engine, a {type(engine).__name__}, has no {missing[0]}"
        raise BackendError(f"{own.place}: backend '{own.name}': {what}, which core.engine.Engine describes")
    return engine


def _require(backend: Backend) -> None:
    if not backend.here:
        raise BackendError(f"backend '{backend.name}': not installed in {sys.executable}; {backend.install}")


def load_module(name: str, module: str) -> ModuleType:
    """A module of a backend that this interpreter has."""
    backend = backend_named(name)
    if backend.own is not None:
        one = "which runs in one process and has no"
        raise BackendError(f"backend '{name}': is a plugin's ({backend.own.place}), {one} {module}")
    _require(backend)
    set_up()  # before the framework is imported
    try:
        with all_kept():
            return importlib.import_module(f"..{name}.{module}", __name__)
    except (ImportError, OSError) as error:
        raise BackendError(f"backend '{name}': installed, but cannot be imported: {error}") from error


def interpreter(name: str) -> Path:
    """The Python that has a backend: this one if it can, else another; raises BackendError when there is none."""
    backend = backend_named(name)
    found = backend.python
    if found is None:
        raise BackendError(f"backend '{name}': not installed; {backend.install}")
    return found


def python_with(module: str, name: str | None = None) -> Path | None:
    """The Python that has a framework, which need not be a backend: this one if it can, else another, else None. A backend of
    another `name` than the framework's has its own variable of the environment, which then comes first."""
    if name is not None and (own := _named(name)) is not None:
        return own if _has(own, module) else None
    if _importable(module):
        return Path(sys.executable)
    return next((candidate for candidate in _candidates(module) if _has(candidate, module)), None)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


def _candidates(module: str) -> list[Path]:
    named = _named(module)
    found = [] if named is None else [named]
    found += [_CHECKOUT / folder / "bin" / "python" for folder in (f".venv-{module}", ".venv")]
    return [path for path in found if path.is_file()]


def _named(name: str) -> Path | None:
    """The Python that the environment names for a backend."""
    given = os.environ.get(f"CROSSDISTIL_PYTHON_{_variable(name)}")
    return Path(given) if given else None


def _variable(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")


@functools.cache
def _has(python: Path, name: str) -> bool:
    program = f"import importlib.util as u; sys.exit(not (u.find_spec({name!r}) and u.find_spec('crossdistil')))"
    try:
        return subprocess.run(code_command(python, program), capture_output=True).returncode == 0
    except OSError:  # it is no program
        return False
