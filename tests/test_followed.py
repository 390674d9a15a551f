"""W&B, MLflow and SwanLab are told a run as their interfaces take it: recording stand-ins for the packages, which are too heavy
to be installed for a test. benchmarks/followed.py tells the packages themselves, and reads back what they have written."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from crossdistil.core.events import Evaluated, Failed, Finished, Logged, Started
from crossdistil.core.log_section import LogSection
from crossdistil.core.registered import NOTHING
from crossdistil.core.sinks import known

RESULT = {"student": {"metrics": {"accuracy": 0.875}}}


def logged(step):
    return Logged(step, "distil", step / 10, 1 / step, {"kd_ce": 2 / step}, 1e-4, 100.0, gradient_norm=3.0)


def tell(folder: Path, log, first=0, steps=(10, 20), end=None):
    lines = []
    [sink] = known.make_sinks(LogSection.model_validate(log), NOTHING, lines.append)
    recipe = {"method": "kd", "stages": [{"name": "distil"}]}
    sink.started(Started(folder / "kd-1", recipe, "torch", "cpu", "fp32", 1, first, first > 0))
    for step in steps:
        sink.logged(logged(step))
        sink.evaluated(Evaluated(step, "distil", step / 10, {"accuracy": 0.75}, True))
    sink.failed(end) if isinstance(end, Failed) else sink.finished(Finished(RESULT))
    assert lines == []


class Recorder:
    """Takes any call, and keeps its name and arguments."""

    def __init__(self, calls, name=""):
        self._calls, self._name = calls, name

    def __getattr__(self, name):
        return Recorder(self._calls, f"{self._name}.{name}".lstrip("."))

    def __call__(self, *arguments, **named):
        self._calls.append((self._name, *arguments, named))
        return self


@pytest.fixture
def standing_in(monkeypatch):
    """`standing_in(name, **attributes)`: a module of that name, as if it were installed."""
    monkeypatch.setattr(known, "require", lambda extra, where: None)

    def put(name, **attributes):
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def test_wandb(tmp_path, standing_in):
    calls = []
    recorder = Recorder(calls)
    standing_in("wandb", init=recorder.init, Settings=lambda **settings: settings)
    log = {"wandb": {"project": "p", "entity": "team", "offline": True}}
    tell(tmp_path, log, end=Failed("killed", True))
    name, init = calls[0][0], calls[0][-1]
    assert name == "init" and init["resume"] == "allow" and init["mode"] == "offline" and init["entity"] == "team"
    assert (init["project"], init["name"], init["dir"]) == ("p", "kd-1", str(tmp_path / "kd-1" / "logs"))
    assert init["config"]["method"] == "kd"
    rows = [(values["train/loss"], named["step"]) for _, values, named in calls[1:-1] if "train/loss" in values]
    assert rows == [(0.1, 10), (0.05, 20)]
    assert calls[1][1]["train/gradient_norm"] == 3.0 and calls[2][1] == {"dev/accuracy": 0.75}
    assert calls[-1] == ("init.finish", {"exit_code": 1})
    before = init["id"]
    calls.clear()
    tell(tmp_path, log, first=20, steps=(30,))
    assert calls[0][-1]["id"] == before  # the run goes on as the same
    assert calls[-2:] == [("init.summary.update", {"final/accuracy": 0.875}, {}), ("init.finish", {"exit_code": 0})]


def test_swanlab(tmp_path, standing_in):
    calls = []
    standing_in("swanlab", init=Recorder(calls).init)
    tell(tmp_path, {"swanlab": {"project": "p"}}, end=Failed("no memory", False))
    init = calls[0][-1]
    assert (init["project"], init["name"], init["mode"], init["resume"]) == ("p", "kd-1", "online", "allow")
    assert Path(init["log_dir"]).is_dir()
    assert [(call[0], call[-1]) for call in calls[1:3]] == [("init.log", {"step": 10})] * 2
    assert calls[-1] == ("init.finish", {"state": "crashed", "error": "no memory"})
    before = init["id"]
    calls.clear()
    tell(tmp_path, {"swanlab": None}, first=20, steps=(30,))
    assert calls[0][-1]["id"] == before and calls[-2][1:] == ({"final/accuracy": 0.875}, {"step": 30})


def test_mlflow(tmp_path, standing_in):
    calls = []

    class Client(Recorder):
        def __init__(self, tracking_uri):
            super().__init__(calls, "")
            calls.append(("client", tracking_uri))

        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            calls.append(("experiment", name))
            return "7"

        def create_run(self, experiment, run_name):
            calls.append(("run", experiment, run_name))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))

    standing_in("mlflow")
    standing_in("mlflow.tracking", MlflowClient=Client)
    standing_in("mlflow.entities", Param=lambda *values: values, Metric=lambda *values: values)
    log = {"mlflow": {"uri": "http://server", "experiment": "e"}}
    tell(tmp_path, log, end=Failed("killed", True))
    assert calls[:3] == [("client", "http://server"), ("experiment", "e"), ("run", "7", "kd-1")]
    assert ("stages.0.name", "distil") in calls[3][-1]["params"]
    metrics = {(name, step): value for call in calls[4:-1] for name, value, _, step in call[-1]["metrics"]}
    assert metrics["train/loss", 20] == 0.05 and metrics["dev/accuracy", 10] == 0.75
    assert calls[-1] == ("set_terminated", "abc", "KILLED", {})
    calls.clear()
    tell(tmp_path, log, first=20, steps=(30,))
    assert calls[1] == ("update_run", "abc", {"status": "RUNNING"}) and not any(call[0] == "run" for call in calls)
    assert calls[-1] == ("set_terminated", "abc", "FINISHED", {})
