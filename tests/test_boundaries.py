"""The house's walls: who may import whom, and that a framework is loaded only when its backend is used."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import crossdistil

ROOT = Path(crossdistil.__file__).resolve().parent
FRAMEWORKS = {"torch", "oneflow", "mindspore", "tensorflow", "transformers", "torch_npu", "jax", "flax", "keras"}
SERVICE = {"fastapi", "uvicorn", "prometheus_client", "onnxruntime"}
"""What only a service needs."""
FOLLOWERS = {"tensorboard", "wandb", "mlflow", "swanlab"}
"""What only a run needs that is followed there."""
BACKENDS = ("torch", "oneflow", "mindspore")
FILES = {
    ".".join(("crossdistil", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for room in ("core", "backends", "converters")
    for path in sorted((ROOT / room).rglob("*.py"))
    if path.parent.name != "networks"  # templates, which are copied and never imported
}


@functools.cache
def imports(name: str, everywhere: bool = True) -> frozenset[str]:
    """Full names of the modules that a module imports: all of them, or only those it imports while it is loaded."""
    package = name.split(".") if FILES[name].name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                start = package[: len(package) - child.level + 1] if child.level else []
                module = ".".join([*start, *([child.module] if child.module else [])])
                # `from . import x`: x is a module where there is one of that name.
                inner = {f"{module}.{alias.name}" for alias in child.names if f"{module}.{alias.name}" in FILES}
                found.update(inner or {module})
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not everywhere:
                continue
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            visit(child)

    visit(ast.parse(FILES[name].read_text(encoding="utf-8")))
    return frozenset(found)


def room(name: str) -> str:
    """`core`, `core.app`, `backends`, `backends.torch`, ..., `converters`, or the name of what is not ours."""
    parts = name.split(".")
    if parts[0] != "crossdistil":
        return parts[0]
    if parts[1:3] == ["core", "app"] or (len(parts) > 3 and parts[1] == "backends") or parts[2:3] and parts[2] in BACKENDS:
        return ".".join(parts[1:3])
    return parts[1] if len(parts) > 1 else "crossdistil"


def test_the_files_are_found():
    assert {room(name) for name in FILES} >= {"core", "core.app", "backends", "converters", *(f"backends.{b}" for b in BACKENDS)}
    # The walls below are only as good as this reading of imports.
    assert "crossdistil.core.errors" in imports("crossdistil.core.checkpoint")
    assert "crossdistil.core.app.crosscheck" in imports("crossdistil.core.app.api")
    assert "torch" in imports("crossdistil.backends.torch.ops")
    lazy = imports("crossdistil.core.metrics") - imports("crossdistil.core.metrics", everywhere=False)
    assert lazy == {"sklearn", "scipy"}


@pytest.mark.parametrize("name", FILES)
def test_who_imports_whom(name):
    own, used = room(name), {room(module) for module in imports(name)}
    allowed_frameworks = set()
    if own == "core":
        assert not used & {"core.app", "backends", "converters", *(f"backends.{b}" for b in BACKENDS)}
    elif own.startswith("backends."):
        allowed_frameworks = {own.removeprefix("backends."), "torch_npu"}
        assert used & {"core.app", "converters", "backends", *(f"backends.{b}" for b in BACKENDS)} <= {own}
    elif own == "backends":
        assert not used & {"core.app", "converters"}
    elif own == "converters":
        assert not used & {"core.app", "backends", *(f"backends.{b}" for b in BACKENDS)}
        used -= FRAMEWORKS - {room(module) for module in imports(name, everywhere=False)}
    else:
        assert own == "core.app"
        # A backend is asked for by name, from the registry; its own modules are no one's business.
        assert not used & {f"backends.{b}" for b in BACKENDS}
    assert used & FRAMEWORKS <= allowed_frameworks


@pytest.mark.parametrize("folder", ["core", "converters", *(f"backends/{backend}" for backend in BACKENDS)])
def test_no_file_name_twice_in_a_package(folder):
    names = [path.name for path in FILES.values() if path.is_relative_to(ROOT / folder) and path.name != "__init__.py"]
    assert len(names) > 3 and [name for name, count in Counter(names).items() if count > 1] == []


def test_no_import_cycles():
    """A module that is loaded loads others, none of which leads back to it; imports within functions count as well."""
    graph = {name: {module for module in imports(name) if module in FILES and module != name} for name in FILES}
    state: dict[str, str] = {}
    cycles = []

    def walk(name, trail):
        state[name] = "open"
        for module in sorted(graph[name]):
            if state.get(module) == "open":
                cycles.append(" -> ".join([*trail[trail.index(module) :], module]))
            elif module not in state:
                walk(module, [*trail, module])
        state[name] = "done"

    for name in graph:
        if name not in state:
            walk(name, [name])
    assert not cycles, "\n".join(cycles)


MODULES = [name for name in FILES if room(name) in ("core", "core.app", "backends", "converters")]


def test_importing_loads_no_framework():
    program = f"""
import importlib, sys
for name in ["crossdistil", *{MODULES!r}]:
    importlib.import_module(name)
    loaded = sorted({FRAMEWORKS | FOLLOWERS!r} & set(sys.modules))
    assert not loaded, f"importing {{name}} loads {{loaded}}"
import crossdistil
assert callable(crossdistil.run)
assert not {FRAMEWORKS!r} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_a_framework():
    program = f"""
import sys
from crossdistil.core.app import cli
for arguments in (["--help"], ["recipes"], ["backends"], ["inspect", "nowhere"]):
    sys.argv = ["crossdistil", *arguments]
    try:
        cli.main()
    except SystemExit:
        pass
loaded = sorted({FRAMEWORKS | SERVICE | FOLLOWERS!r} & set(sys.modules))
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
