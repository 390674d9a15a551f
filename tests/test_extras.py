"""Packages that only some commands need: what is missing is told in one line, and pyproject.toml installs what is asked for."""

import re
import sys
from pathlib import Path

import pytest

from crossdistil.core import extras
from crossdistil.core.errors import BackendError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def names(requirements):
    return {re.match(r"[\w-]+", line)[0].lower().replace("-", "_") for line in requirements}


HEAVY = ("mlflow", "swanlab", "wandb")
"""Tested with what stands in for their interfaces; `benchmarks/followed.py` runs them themselves."""


@pytest.mark.parametrize("extra", extras._EXTRAS)
def test_an_extra_installs_what_is_asked_for(extra):
    declared = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    # mlflow-skinny is MLflow without its server.
    assert {name.removesuffix("_skinny") for name in names(declared[extra])} == set(extras._EXTRAS[extra])
    assert extra in HEAVY or names(declared[extra]) <= names(declared["test"]), "the tests run each of them"


def test_a_command_says_what_it_lacks_before_it_works(said, tmp_path, monkeypatch):
    find = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name in ("matplotlib", "jieba") else find(name))
    code, _, errors = said("latency", tmp_path / "nowhere", "--picture", tmp_path / "a.png")
    assert code == 2 and "--picture: needs matplotlib in" in errors
    words = ("data", "mlm", "--data", tmp_path, "--vocabulary", tmp_path, "--out", tmp_path / "out")
    code, _, errors = said(*words, "--whole-words", "chinese")
    assert code == 2 and "--whole-words chinese: needs jieba in" in errors


def test_only_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(BackendError, match=r"^serve: needs uvicorn in .*: pip install 'crossdistil\[serve\]'$"):
        extras.require("serve", "serve")
