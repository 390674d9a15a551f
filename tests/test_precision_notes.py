"""bf16 on a processor that has no arithmetic in it is told by every command that computes, before it does."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from crossdistil.core import processor
from crossdistil.core.app import inference, latency, predicting
from crossdistil.core.app.fill_cache import fill_caches
from crossdistil.core.app.latency import LatencyOptions, measure
from crossdistil.core.app.service_model import read_classifier
from crossdistil.core.app.sessions import session
from crossdistil.core.app.timed_model import Case, Request
from crossdistil.core.engine import EngineOptions
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.test_latency import Turns

NOTE = "bf16: this processor has no arithmetic in it and imitates it, mostly much slower than --precision fp32"


def predicted(model, task, tell, options):
    with session("torch", options) as own:
        predicting.predict(model, ["a film"], None, own, tell=tell)


def cached(model, task, tell, options):
    recipe = tiny.kd_recipe(task, model)
    output = io.StringIO()
    fill_caches(parse_recipe(recipe, "r"), "r", "torch", options, Console(file=output, width=300))
    for line in output.getvalue().splitlines():
        tell(line)


COMMANDS = {
    "predict": predicted,
    "evaluate": lambda model, task, tell, options: inference.evaluate(model, "sst-2", task, "dev", "torch", options, tell=tell),
    "serve": lambda model, task, tell, options: read_classifier(model, "torch", None, tell).load(2, options),
    "cache teacher": cached,
}


@pytest.mark.backend
@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_notes_it_once(name, tiny_model, tiny_task, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path))
    for lacking, precision in ((True, "bf16"), (False, "bf16"), (True, "fp32")):
        monkeypatch.setattr(processor, "lacks_bf16", lambda known=lacking: known)
        said = []
        COMMANDS[name](tiny_model, tiny_task, said.append, EngineOptions("cpu", precision))
        assert said.count(f"note: {NOTE}") == (lacking and precision == "bf16"), said


@pytest.mark.parametrize("lacking", [True, False])
def test_latency_notes_it_of_the_models_that_compute_in_it(lacking, monkeypatch):
    class InBf16(Turns):
        def start(self):
            super().start()
            self.about["precision"] = {"a": "fp32", "b": "bf16"}[self.name]

    monkeypatch.setattr(latency, "_Process", InBf16)
    monkeypatch.setattr(processor, "lacks_bf16", lambda: lacking)
    said, request = [], Request("folder", "torch", "fp32", "perf_counter", 3)
    measure({"a": request, "b": request}, LatencyOptions((Case(1, 8),), 1, rounds=1, warm_up=0), said.append)
    assert [line for line in said if "bf16" in line] == [f"note: b: {NOTE}"] * lacking
