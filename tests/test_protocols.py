"""Every backend has the methods that core asks for, with the same parameters, order and defaults."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from crossdistil.backends.registry import BACKENDS
from crossdistil.core import ops as protocol

ROOT = Path(protocol.__file__).resolve().parents[1]


def signatures(path: Path, suffix: str) -> dict[str, str]:
    """Method name -> parameters with defaults of the class that ends in `suffix`, in a file or a folder's files, none of which
    is imported."""
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    classes = [node for file in files for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
    [found] = [node for node in classes if node.name.endswith(suffix)]
    methods = {}
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            for argument in [*node.args.args, *node.args.kwonlyargs]:
                argument.annotation = None
            methods[node.name] = ast.unparse(node.args)
    return methods


@pytest.mark.parametrize("name", BACKENDS)
def test_the_signatures_are_those_of_the_protocol(name):
    assert signatures(ROOT / "backends" / name / "ops.py", "Ops") == signatures(ROOT / "core" / "ops.py", "Ops")


def test_the_signatures_of_the_reference_are_those_of_the_protocol():
    assert signatures(ROOT / "core" / "reference.py", "Ops") == signatures(ROOT / "core" / "ops.py", "Ops")


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("part", ["Engine", "TrainStep"])
def test_an_engine_has_the_methods_of_the_protocol(name, part):
    expected = signatures(ROOT / "core" / "engine.py", part if part == "TrainStep" else "Engine")
    found = signatures(ROOT / "backends" / name, part)
    assert {method: found.get(method) for method in expected} == expected


def test_the_running_ops_have_the_signatures_of_the_protocol(engine):
    for name, expected in inspect.getmembers(protocol.Ops, inspect.isfunction):
        if name.startswith("_"):
            continue
        found = inspect.signature(getattr(engine.ops, name))
        expected = list(inspect.signature(expected).parameters.values())[1:]
        assert [(p.name, p.default) for p in found.parameters.values()] == [(p.name, p.default) for p in expected]
