"""A backend in a user's own file: it trains, agrees with the one that it is made of, and is told in a line where it is wrong."""

from __future__ import annotations

import json
import os
import sys

import pytest

import crossdistil
from crossdistil.backends.registry import interpreter, known_backends, load_engine
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import BackendError, PluginError
from crossdistil.core.place import Place
from crossdistil.core.plugin_files import load_plugins, named_plugins
from crossdistil.tests import tiny
from crossdistil.tests.doc_plugins import write_shown

PLUGIN = """
from crossdistil import register_backend

def engine(options):
    from crossdistil.backends.{name}.engine import {engine}
    return {engine}(options)

register_backend("mine", engine, framework="{name}")
"""
ENGINES = {"torch": "TorchEngine", "oneflow": "OneFlowEngine", "mindspore": "MindSporeEngine"}


def load(file):
    return load_plugins(named_plugins({"plugins": [str(file)]}, "test"))


@pytest.fixture
def plugin(tmp_path):
    """`plugin(text)`: the path of a file with it."""

    def write(text):
        (tmp_path / "my_backend.py").write_text(text)
        return tmp_path / "my_backend.py"

    return write


# Its engine is the backend's own: one that compiles two runs says nothing more.
@pytest.mark.only_backend("torch", "oneflow")
def test_it_trains_as_the_engine_that_it_is_made_of(tmp_path, plugin, backend_name, tiny_model):
    tiny.write_task(tmp_path / "task", 24, 12)
    path = plugin(PLUGIN.format(name=backend_name, engine=ENGINES[backend_name]))
    tree = {**tiny.kd_recipe(tmp_path / "task", tiny_model, steps=3), "plugins": [str(path)]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    results = [
        crossdistil.run(tmp_path / "recipe.yaml", out=tmp_path / name, backend=name, quiet=True, latency=False)
        for name in (backend_name, "mine")
    ]
    assert [result["backend"] for result in results] == [backend_name, "mine"]
    assert results[0]["student"]["metrics"] == results[1]["student"]["metrics"]
    weights = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in (backend_name, "mine")]
    assert weights[0] == weights[1]
    options = {"backend": "mine", "plugins": [str(path)]}
    assert crossdistil.predict(tmp_path / "mine", "good", **options)[0].label in ("negative", "positive")


@pytest.mark.only_backend("torch")
def test_the_one_of_the_page_asks_for_repeatable_kernels(tmp_path, tiny_model):
    import torch

    [path] = write_shown(tmp_path, "my_backend.py")
    load(path)
    engine = load_engine("repeatable", EngineOptions("cpu"))
    assert engine.name == "repeatable" and type(engine).__mro__[1].__name__ == "TorchEngine"
    try:
        with pytest.raises(TypeError):
            engine.train_step()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_python_that_it_needs(tmp_path, plugin, monkeypatch):
    text = PLUGIN.format(name="json", engine="Nothing")
    load(plugin(text))
    assert interpreter("mine").samefile(sys.executable)
    monkeypatch.setenv("CROSSDISTIL_PYTHON_MINE", "/nowhere/python")
    with pytest.raises(BackendError, match="not installed; it needs a Python .that of CROSSDISTIL_PYTHON_MINE. with json"):
        interpreter("mine")
    monkeypatch.setenv("CROSSDISTIL_PYTHON_MINE", sys.executable)
    assert interpreter("mine").samefile(sys.executable)
    monkeypatch.delenv("CROSSDISTIL_PYTHON_MINE")
    other = tmp_path / "python"
    other.write_text(f"#!/bin/sh\nexec {sys.executable} \"$@\"\n")
    other.chmod(0o755)
    load(plugin(text.replace('framework="json"', f"framework='json', python={str(other)!r}")))
    assert interpreter("mine") == other and not known_backends()["mine"].here
    os.remove(other)
    with pytest.raises(BackendError, match=f"not installed; it needs a Python .{other}. with json and crossdistil, says .*py:8"):
        interpreter("mine")


WRONG = {
    "a name of ours": ('"mine"', '"torch"', r"backend 'torch': crossdistil has one of this name"),
    "a name of a run": ('"mine"', '"mine-2"', "ends in a number"),
    "no function": ("engine, framework", "3, framework", r"expected a function \(options\), got 3"),
    "other arguments": ("def engine(options)", "def engine()", r"expected a function \(options\)"),
    "no module": ('framework="json"', 'framework="a b"', "framework: got 'a b', expected the name of a module"),
    "no words": ('framework="json"', 'framework="json", devices=["cpu"]', "devices: got .*, expected words"),
    "no path": ('framework="json"', 'framework="json", python=3', "python: got 3, expected the path"),
    "twice": ("register_backend(", "register_backend('mine', engine, framework='json')\nregister_backend(", "registered twice"),
}


@pytest.mark.parametrize(("old", "new", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_its_line(plugin, old, new, message):
    text = PLUGIN.format(name="json", engine="Nothing")
    assert old in text
    with pytest.raises(PluginError, match=rf"my_backend.py:\d+: .*{message}"):
        load(plugin(text.replace(old, new)))
    assert "mine" not in known_backends()


def test_what_its_engine_lacks_is_told(plugin):
    text = PLUGIN.format(name="json", engine="Nothing")
    with pytest.raises(BackendError, match=r"unknown backend 'xyz'; there are torch, .*; a plugin's needs --plugin FILE"):
        load_engine("xyz", EngineOptions("cpu"))
    load(plugin(text))
    with pytest.raises(BackendError, match=r"my_backend.py:5: backend 'mine': makes no engine: ModuleNotFoundError"):
        load_engine("mine", EngineOptions("cpu"))
    body = "    class Empty:\n        pass\n    return Empty()\n"
    load(plugin(text.partition("    from")[0] + body + text[text.index("\nregister_") :]))
    with pytest.raises(BackendError, match="its engine, a Empty, has no device, which core.engine.Engine describes"):
        load_engine("mine", EngineOptions("cpu"))
    with pytest.raises(BackendError, match="runs in one process; leave --devices out"):
        load_engine("mine", EngineOptions("cpu", place=Place(rank=0, size=2)))


def test_a_misspelt_one_is_told(plugin, said):
    path = plugin(PLUGIN.format(name="json", engine="Nothing"))
    code, printed, _ = said("backends", "--plugin", path)
    assert code == 0 and "mine" in printed
    code, _, errors = said("predict", "model", "text", "--backend", "mein", "--plugin", path)
    assert (code, errors) == (2, "crossdistil: error: unknown backend 'mein'; did you mean 'mine'?\n")
