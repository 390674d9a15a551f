"""What takes long before the first step is told, and what does not is not."""

from __future__ import annotations

import json
import time

import pytest

from crossdistil.core.app import progress, waiting
from crossdistil.core.app.progress import TrainingProgress, make_console
from crossdistil.core.app.waiting import Waiting
from crossdistil.tests import tiny


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.2)


def until(said, count):
    end = time.monotonic() + 5
    while len(said) < count and time.monotonic() < end:
        time.sleep(0.01)
    return said


def test_what_takes_long_is_told_while_it_goes_on(impatient):
    said = []
    with Waiting(said.append) as work:
        work.doing("reading")
        assert until(said, 1) == ["reading ..."]
        work.doing("short")
        work.doing("tokenizing")
        assert until(said, 2) == ["reading ...", "tokenizing ..."]
        assert until(said, 3)[2] == "tokenizing ... for 1 s so far"
        work.doing("last")
    time.sleep(0.3)
    assert len(said) == 3, "nothing once it has ended"


def test_a_first_step_that_takes_long_is_told_in_a_log(impatient, capsys):
    with TrainingProgress("torch distil", make_console()) as shown:
        shown.start(0, 12)
        time.sleep(0.4)
        shown.advance(1, 30)
    assert capsys.readouterr().out.splitlines()[0] == "torch distil: step 1 of 12 is under way ..."
    with TrainingProgress("torch distil", make_console()) as shown:
        shown.start(0, 12)
        shown.advance(1, 30)
        time.sleep(0.3)
    assert "way" not in capsys.readouterr().out


@pytest.mark.backend
@pytest.mark.only_backend("torch")
def test_a_run_tells_what_it_does_before_its_first_step_and_when_it_is_scored(tmp_path, tiny_task, tiny_model, said, monkeypatch):
    """Each part is slow in turn here; lines come where it is, and in no other place."""
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(tiny.kd_recipe(tiny_task, tiny_model)))
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 1e9)
    known = Waiting.doing

    def slow(self, text):
        known(self, text)
        time.sleep(0.2)

    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(Waiting, "doing", slow)
    code, output, errors = said("run", path, "--backend", "torch", "--device", "cpu", "--out", tmp_path / "run", "--no-latency")
    assert code == 0, errors
    assert [line for line in output.splitlines() if line.endswith(" ...")] == [
        "starting torch ...",
        "looking at the models and the data ...",
        f"reading the texts in {tiny_task} ...",
        "reading the weights ...",
        "tokenizing 65 texts ...",
        "teacher: answering the 21 texts of dev ...",
        "torch distil: step 1 of 12 is under way ...",
        *["torch distil: scoring on dev ..."] * 2,
    ]
