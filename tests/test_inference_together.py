"""`evaluate` and `predict` in several processes: the batches are shared out, and what is printed is that of one process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from crossdistil.core.app import inference, predicting
from crossdistil.core.app.error_lines import what_is_left
from crossdistil.core.app.given_texts import GivenTexts, of_the_first
from crossdistil.core.app.sessions import Session
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.model_answers import EVALUATION_BATCH
from crossdistil.core.processes import python_command
from crossdistil.tests import tiny
from crossdistil.tests.cached_teacher import ReferenceEngine
from crossdistil.tests.worlds import together

TEXTS = tiny.sentences(2 * EVALUATION_BATCH + 5, seed=3)[0]


class CountingEngine(ReferenceEngine):
    """Keeps how many batches it computed."""

    def __init__(self):
        self.batches = 0

    def infer(self, function, parameters):
        compute = super().infer(function, parameters)

        def run(batch):
            self.batches += 1
            return compute(batch)

        return run


def predicted(size, model, texts):
    """(JSON lines, what was told, batches computed) of each of `size` processes."""

    def run(world):
        told, engine = [], CountingEngine()
        own = Session(world, lambda: engine)
        found = predicting.predict(model, texts, None, own, tell=own.teller(told.append))
        return predicting.as_json_lines(found), told, engine.batches

    return together(size, run)


def test_predictions_are_those_of_one_process(tiny_model):
    [(alone, _, batches)] = predicted(1, tiny_model, TEXTS)
    assert batches == 3 and len(alone.splitlines()) == len(TEXTS)
    for size in (2, 3, 5):  # of five, two have nothing to do
        answers = predicted(size, tiny_model, TEXTS)
        assert {lines for lines, _, _ in answers} == {alone}
        assert [count for _, _, count in answers] == [len(range(rank, 3, size)) for rank in range(size)]
    told = [told for _, told, _ in predicted(3, tiny_model, ["Ж"])]
    assert len(told[0]) == 1 and told[1:] == [[], []]


def test_the_score_is_that_of_one_process(tiny_model, tmp_path, monkeypatch):
    tiny.write_task(tmp_path, dev=EVALUATION_BATCH + 9)

    own = threading.local()
    monkeypatch.setattr(inference, "session", lambda *_: own.session)

    def run(world):
        told, engine = [], CountingEngine()
        own.session = _Entered(Session(world, lambda: engine))
        found = inference.evaluate(tiny_model, "sst-2", tmp_path, "dev", "reference", EngineOptions(), tell=told.append)
        return found, told, engine.batches

    [(alone, said, _)] = together(1, run)
    answers = together(2, run)
    assert [found for found, _, _ in answers] == [alone, alone] and [count for _, _, count in answers] == [1, 1]
    assert _without_times(answers[0][1]) == _without_times(said) and answers[1][1] == []
    assert any(line.startswith(f"evaluated {EVALUATION_BATCH + 9} texts in ") and line.endswith(" ms a text") for line in said)


def _without_times(lines):
    return [line for line in lines if not line.startswith("evaluated ")]


class _Entered:
    """A context that is its value."""

    def __init__(self, value):
        self._value = value

    def __enter__(self):
        return self._value

    def __exit__(self, *_):
        pass


def test_texts_are_read_by_the_first_process():
    given = GivenTexts(["a", "\udce4 b"], None, [1, 2.5], ("a note",))
    read = []

    def run(world):
        return of_the_first(world, lambda: read.append(world.rank) or given)

    assert together(3, run) == [given] * 3 and read == [0]

    def fail():
        raise DataError("texts.txt: is empty")

    errors = together(2, lambda world: of_the_first(world, fail))
    assert [str(error) for error in errors] == ["texts.txt: is empty"] * 2
    assert all(isinstance(error, CrossdistilError) for error in errors)


def test_what_is_left_of_a_command(monkeypatch):
    resume = "--resume goes on from the last saved state, if there is one"
    for command, left in (("run", resume), ("predict", "nothing is half written")):
        monkeypatch.setattr(sys, "argv", ["crossdistil", command])
        assert what_is_left() == left


@pytest.mark.backend
@pytest.mark.only_backend("torch")
def test_the_command_in_two_processes(backend_name, tiny_model):
    """Standard input is read once, whoever starts the processes; an error is said once."""
    texts = "".join(f"{text}\n" for text in TEXTS)

    def predict(*arguments, launcher=()):
        command = python_command(sys.executable, *launcher, "crossdistil", "predict", *arguments, "--backend", backend_name)
        return subprocess.run(command, input=texts, capture_output=True, text=True)

    alone = predict(str(tiny_model), "--file", "-")
    assert alone.returncode == 0 and len(alone.stdout.splitlines()) == len(TEXTS)
    assert np.isclose(sum(json.loads(alone.stdout.splitlines()[0])["probabilities"].values()), 1)
    several = predict(str(tiny_model), "--file", "-", "--devices", "2")
    assert (several.returncode, several.stdout, several.stderr) == (0, alone.stdout, alone.stderr)
    wrong = predict(str(tiny_model), "--file", "/nowhere.txt", "--devices", "2")
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", "crossdistil: error: /nowhere.txt: no such file\n")
    joined = predict(str(tiny_model), "--file", "-", launcher=("torch.distributed.run", "--nproc-per-node", "2", "-m"))
    assert (joined.returncode, joined.stdout) == (0, alone.stdout)
