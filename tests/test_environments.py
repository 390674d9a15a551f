"""environments.py finds a Python that runs, installs when something changed and only then, and says what is missing."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import pytest

from crossdistil import environments
from crossdistil.environments import ENVIRONMENTS, Problem

MAIN, ONEFLOW = ENVIRONMENTS
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


def executable(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = [\n    "numpy>=1.24",\n]\n[project.optional-dependencies]\ntorch = ["torch>=2.6"]\n'
        "[tool.ruff]\nline-length = 120\n")
    (tmp_path / "constraints.txt").write_text("# tested\nnumpy==1.26.4\n")
    return tmp_path


@pytest.fixture
def installs(monkeypatch):
    """What would have been run; the environment's Python is there without being made."""
    commands: list[list[str]] = []

    def make_folder(environment, folder):
        folder.mkdir(exist_ok=True)
        return "3.11"

    monkeypatch.setattr(environments, "make_folder", make_folder)
    monkeypatch.setattr(environments, "version_of", lambda python: "3.11")
    monkeypatch.setattr(environments, "run_logged", lambda name, command, log, failure: commands.append(list(command)))
    return commands


def installed(commands):
    return [word.split("[")[1].rstrip("]").split(",") for command in commands for word in command if "[" in word]


def test_installs_what_is_asked_and_nothing_the_second_time(checkout, installs, capsys):
    assert environments.prepare(MAIN, {"torch"}, checkout)
    assert installed(installs) == [["torch", "test"]]
    installs.clear()
    assert not environments.prepare(MAIN, {"torch"}, checkout)
    assert installs == []
    assert ".venv: up to date (torch; Python 3.11)" in capsys.readouterr().out


def test_a_backend_is_added_and_a_part_of_what_is_there_is_up_to_date(checkout, installs, capsys):
    environments.prepare(MAIN, {"torch"}, checkout)
    assert environments.prepare(MAIN, {"mindspore"}, checkout)
    assert installed(installs)[-1] == ["torch", "mindspore", "test"]
    assert "asked for more than it holds" in capsys.readouterr().out
    assert not environments.prepare(MAIN, {"torch"}, checkout)
    assert not environments.prepare(MAIN, {"torch", "mindspore"}, checkout)


@pytest.mark.parametrize("file, old, new, changed", [
    ("pyproject.toml", "numpy>=1.24", "numpy>=1.25", True),
    ("pyproject.toml", "torch>=2.6", "torch>=2.7", True),
    ("pyproject.toml", "line-length = 120", "line-length = 100", False),
    ("constraints.txt", "1.26.4", "1.26.3", True),
    ("constraints.txt", "# tested", "# tested twice", False),
])
def test_only_a_changed_requirement_installs_again(checkout, installs, file, old, new, changed):
    environments.prepare(MAIN, {"torch"}, checkout)
    path = checkout / file
    path.write_text(path.read_text().replace(old, new))
    assert environments.prepare(MAIN, {"torch"}, checkout) == changed


def test_an_interrupted_install_leaves_no_stamp_and_is_continued(checkout, installs, monkeypatch):
    environments.prepare(MAIN, {"torch"}, checkout)
    record = environments.run_logged

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(environments, "run_logged", killed)
    with pytest.raises(KeyboardInterrupt):
        environments.prepare(MAIN, {"mindspore"}, checkout)
    assert environments.read_stamp(checkout / ".venv") == {}
    packages = checkout / ".venv/lib/python3.11/site-packages"
    (packages / "whole.dist-info").mkdir(parents=True)
    (packages / "whole.dist-info/RECORD").touch()
    (packages / "cut_off.dist-info").mkdir()
    monkeypatch.setattr(environments, "run_logged", record)
    assert environments.prepare(MAIN, {"mindspore"}, checkout)
    assert [path.name for path in packages.iterdir()] == ["whole.dist-info"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"backends": "torch"}', '{"backends": ["torch"]}'])
def test_a_damaged_stamp_counts_as_none(tmp_path, text):
    (tmp_path / environments.STAMP).write_text(text)
    assert environments.read_stamp(tmp_path) == {}


def test_a_moved_checkout_installs_again(checkout, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved")
    for name in ("pyproject.toml", "constraints.txt"):
        (moved / name).write_bytes((checkout / name).read_bytes())
    assert environments.requirements_hash(checkout) != environments.requirements_hash(moved)


@pytest.mark.parametrize("script", [
    "echo 'python3.10: command not found' >&2; exit 127", "echo 3.9", "exit 0", "echo '3.10 without venv'"])
def test_shims_that_do_not_run_are_skipped(tmp_path, monkeypatch, script):
    shim = executable(tmp_path / "shims/python3.10", script)
    real = executable(tmp_path / "pyenv/versions/3.10.13/bin/python", "echo 3.10")
    monkeypatch.delenv("CROSSDISTIL_PYTHON310", raising=False)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(shim).parent), "/usr/bin", "/bin"]))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(sys, "version_info", (3, 8, 0))
    assert environments.find_python(ONEFLOW) == (real, "3.10")


def test_the_given_python_is_taken_or_refused(tmp_path, monkeypatch):
    given = executable(tmp_path / "mine", "echo 3.10")
    monkeypatch.setenv("CROSSDISTIL_PYTHON310", given)
    assert environments.find_python(ONEFLOW) == (given, "3.10")
    executable(tmp_path / "mine", "echo 3.9")
    with pytest.raises(Problem, match="CROSSDISTIL_PYTHON310=.*expected Python 3.10, found Python 3.9"):
        environments.find_python(ONEFLOW)


def test_a_missing_python_is_told_before_anything_is_installed(checkout, installs, monkeypatch, capsys):
    monkeypatch.setattr(environments, "ROOT", checkout)
    monkeypatch.setattr(environments, "version_of", lambda python: None)
    monkeypatch.setattr(environments, "candidates", lambda version: [sys.executable] if version == "3.11" else [])
    monkeypatch.setattr(environments.platform, "system", lambda: "Linux")
    monkeypatch.setattr(environments.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(environments, "find_python", lambda environment, find=environments.find_python: (
        ("python", "3.11") if environment is MAIN else find(environment)))
    monkeypatch.delenv("CROSSDISTIL_PYTHON310", raising=False)
    assert environments.main(["torch,oneflow"]) == 2
    error = capsys.readouterr().err
    assert "Python 3.10 not found" in error and "pyenv install 3.10" in error and "uv python install 3.10" in error
    assert "BACKENDS=torch,mindspore" in error
    assert installs == []


def test_an_unknown_backend_is_refused(capsys):
    assert environments.main(["torch", "jax"]) == 2
    assert "unknown backend jax; expected any of torch, mindspore, oneflow" in capsys.readouterr().err


def test_an_environment_of_somebody_else_is_not_deleted(tmp_path, monkeypatch):
    executable(tmp_path / ".venv/bin/python", "echo 3.13")
    with pytest.raises(Problem, match="holds Python 3.13, expected 3.11 or 3.12.*move it away"):
        environments.make_folder(MAIN, tmp_path / ".venv")
    assert (tmp_path / ".venv/bin/python").exists()


def test_a_broken_environment_is_made_again(tmp_path, monkeypatch, capsys):
    folder = tmp_path / ".venv"
    executable(folder / "bin/python", "exit 1")
    maker = executable(tmp_path / "python", 'mkdir -p "$4/bin"; echo "$@" > "$4/made"')
    monkeypatch.setattr(environments, "find_python", lambda environment: (maker, "3.11"))
    assert environments.make_folder(MAIN, folder) == "3.11"
    assert (folder / "made").read_text().split() == ["-m", "venv", "--clear", str(folder)]
    assert "making it again" in capsys.readouterr().out


def test_a_failure_shows_the_end_of_the_log_without_addresses(tmp_path):
    log = tmp_path / "install.log"
    pip = executable(tmp_path / "pip", "for i in $(seq 30); do echo line $i; done\n"
                                       "echo looked at https://user:token@host/x; exit 3")
    with pytest.raises(Problem) as problem:
        environments.run_logged(".venv", [pip], log, "pip install failed")
    message = str(problem.value)
    assert "looked at <address>" in message and "token" not in message
    assert "line 30" in message and "line 11\n" not in message
    assert problem.value.code == 1


def test_the_running_python_is_seen_as_it_is():
    assert environments.version_of(sys.executable) == RUNNING
    assert environments.version_of(str(Path(sys.executable).parent / "no-such-python")) is None


def test_stamp_is_written_whole(tmp_path):
    environments.write_stamp(tmp_path, "hash", ["torch"], "3.11")
    assert json.loads((tmp_path / environments.STAMP).read_text())["backends"] == ["torch"]
    assert [path.name for path in tmp_path.iterdir()] == [environments.STAMP]


def test_a_disk_that_is_too_full_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "find_python", lambda environment: (sys.executable, "3.11"))
    monkeypatch.setattr(environments.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2.5e9))
    with pytest.raises(environments.Problem, match=r"\.venv: takes about 6 GB of disk, 2\.5 GB are free there"):
        environments.make_folder(environments.ENVIRONMENTS[0], tmp_path / ".venv")
    assert not (tmp_path / ".venv").exists()
