"""A current folder with modules that are named as libraries: nothing that is started executes them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossdistil.backends import registry
from crossdistil.core.data.mlm import piece_worker
from crossdistil.core.processes import code_command, python_command

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    "typer", "tokenizers", "numpy", "json", "runpy", "pickle", "safetensors", "rich", "torch", "crossdistil", "signal", "types",
]  # fmt: skip


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """The folder, which is the current one; each of its modules leaves a file behind when it is executed."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'EXECUTED')!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "EXECUTED").exists()


def pythons():
    """This interpreter, and one of Python 3.10 where there is one."""
    older = ROOT / ".venv-oneflow/bin/python"
    return [sys.executable, *([str(older)] if older.is_file() else [])]


@pytest.mark.parametrize("python", pythons())
def test_programs(hostile, python):
    code = "import json, runpy, pickle, types, signal, sys; print(json.__name__, sys.path[:2])"
    environment = {**os.environ, "PYTHONPATH": str(hostile / "of the user")}
    done = subprocess.run(code_command(python, code), capture_output=True, text=True, env=environment)
    assert done.stderr == "" and done.stdout.startswith("json [") and "of the user" in done.stdout
    assert subprocess.run(python_command(python, "json.tool"), input="{}", capture_output=True, text=True).stdout == "{}\n"


def test_arguments_and_name(hostile, tmp_path):
    (tmp_path / "path").mkdir()
    (tmp_path / "path/shown_module.py").write_text("import sys; print(__name__, sys.argv[1:])")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "path")}
    command = python_command(sys.executable, "shown_module", "--a", "b c")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "__main__ ['--a', 'b c']\n"


def test_the_command(hostile):
    command = python_command(sys.executable, "crossdistil.core.app.cli")
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_the_search_for_a_framework(hostile):
    assert registry._has.__wrapped__(Path(sys.executable), "numpy")


def test_the_process_that_finds_word_pieces(hostile):
    import tokenizers
    from tokenizers import models

    library = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, "[UNK]"))
    found = list(piece_worker.encode_batches([["a"], ["b"], ["a"], ["a"]], library))
    assert [ids.tolist() for ids, _ in found] == [[1], [0], [1], [1]]
    assert all(isinstance(lengths, np.ndarray) for _, lengths in found)


def test_every_interpreter_is_started_by_one_function():
    """`-m` and `-c` stand in no other command line of the package."""
    for path in [*ROOT.glob("core/**/*.py"), *ROOT.glob("backends/**/*.py"), *ROOT.glob("converters/*.py")]:
        text = path.read_text(encoding="utf-8")
        if path.name != "processes.py":
            assert '"-m"' not in text and '"-c"' not in text and "import multiprocessing" not in text, path
