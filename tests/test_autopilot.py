"""The autopilot of `search`: which students there could be, and that those over the limit are told and never trained."""

from __future__ import annotations

import json
import re

import pytest

from crossdistil.core.app import autopilot, search_results
from crossdistil.core.app import search as search_module
from crossdistil.core.app.autopilot import limits_of, students_of
from crossdistil.core.checkpoint import Model
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.models.families.albert import AlbertConfig
from crossdistil.tests import tiny
from crossdistil.tests.searches import Runs

pytestmark = pytest.mark.environment_of("torch", "mindspore")  # whose environment has Optuna

LIMITS = ["--max-latency", "2ms"]


@pytest.fixture
def pilot(said, tiny_task, tiny_model, monkeypatch, tmp_path):
    """`pilot(*options)`: the autopilot for the tiny teacher of 2 layers x 32, as `said`; a student takes a millisecond a layer,
    and runs end at once. `pilot.runs` are those that were started."""
    runs = Runs()

    def measured(models, recipe, backend, precision, threads):
        layers = {name: json.loads((path / "config.json").read_text())["num_hidden_layers"] for name, path in models.items()}
        return {name: float(count) for name, count in layers.items()}

    def run(*options):
        own = ["--task", "sst-2", "--set", "task.max_length=16", "--out", tmp_path / "out"]
        return said("search", "--teacher", tiny_model, "--data", tiny_task, *own, *options)

    monkeypatch.setattr(search_module, "run_trial", runs)
    monkeypatch.setattr(autopilot, "measured", measured)
    monkeypatch.setattr(search_results, "measured_students", lambda students, *_: dict.fromkeys(students, 1.5))
    run.runs, run.out = runs, tmp_path / "out"
    return run


def test_those_over_the_limit_are_told_and_not_trained(pilot):
    code, output, errors = pilot("--max-latency", "1.5ms", "--trials", "8", "--no-pruning")
    assert (code, errors) == (0, "")
    assert re.search(r"2 layers x 16, random: 2.00 ms, .* MB; over the limit of 1.5 ms: not trained", output)
    found = json.loads((pilot.out / "search.json").read_text())
    tried = {trial["point"]["student"] for trial in found["trials"]}
    assert tried and all(name.startswith("1 layer ") for name in tried)
    assert {row["name"]: row["verdict"] for row in found["autopilot"]["students"]} == {
        "1 layer x 32, from layer 0": "within the limit",
        "2 layers x 16, random": "over the limit of 1.5 ms: not trained",
        "1 layer x 16, random": "within the limit",
        "2 layers x 8, random": "over the limit of 1.5 ms: not trained",
        "1 layer x 8, random": "within the limit",
    }
    assert found["default"] == 0  # the largest within the limit, by kd
    assert found["trials"][0]["point"]["recipe"] == "kd"
    assert all(trial["latency_ms"] == 1.0 for trial in found["trials"])
    assert found["autopilot"]["check_ms"] == 1.5  # the best, trained
    assert "Students that were considered" in (pilot.out / "report.html").read_text()


def test_a_busy_machine_is_told(pilot, monkeypatch):
    for load, told in ((1000.0, True), (0.0, False)):
        monkeypatch.setattr(autopilot.os, "getloadavg", lambda own=load: (own, own, own))
        assert ("the machine is busy" in pilot("--max-latency", "0.5ms", "--trials", "1")[1]) == told


def test_a_limit_of_size(pilot):
    assert pilot("--max-size", "20kB", "--trials", "2")[0] == 0
    rows = json.loads((pilot.out / "search.json").read_text())["autopilot"]["students"]
    assert [row["verdict"].startswith("within") for row in rows] == [row["bytes"] <= 20_000 for row in rows]
    assert len({row["verdict"] for row in rows}) == 2


def test_no_student_is_within_the_limit(pilot):
    code, _, errors = pilot("--max-latency", "0.5ms", "--trials", "2")
    assert code == 2 and len(errors.splitlines()) == 1
    assert "no student is within the limit: the fastest, 1 layer x 8, random, takes 1.00 ms with 1 thread," in errors
    assert not pilot.runs.run and not pilot.out.exists()


@pytest.mark.parametrize(
    ("options", "measured", "expected"),
    [
        (["--max-latency", "0.4ms"], [1], "limit of 0.4 ms: the smallest, 1 layer x 8, random, takes 1.00 ms with 1 thread;"),
        (["--max-latency", "0.6ms"], [1, 5], "no student is within the limit: the fastest"),  # that may be the machine
        (["--max-size", "1kB", "--max-latency", "9ms"], [], "limit of 0.001 MB: the smallest, 1 layer x 8, random, has 0."),
    ],
)
def test_a_limit_far_below_the_smallest_is_refused_before_the_rest_is_measured(pilot, monkeypatch, options, measured, expected):
    asked, measure = [], autopilot.measured
    monkeypatch.setattr(autopilot, "measured", lambda models, *rest: asked.append(len(models)) or measure(models, *rest))
    code, _, errors = pilot(*options, "--trials", "2")
    assert code == 2 and expected in errors and len(errors.splitlines()) == 1 and asked == measured


def test_both_limits_are_named():
    limits = limits_of("2ms", "20MB")
    assert limits.refusal(10.93, 69_600_000) == "over the limits of 2 ms and 20 MB: not trained"
    assert limits.refusal(1, 69_600_000) == "over the limit of 20 MB: not trained"
    assert limits.refusal(10.93, 1) == "over the limit of 2 ms: not trained"
    assert limits.refusal(2, 20_000_000) == ""


def test_the_best_is_compared_with_the_first_student_and_no_recipe(pilot):
    assert pilot("--max-latency", "1.5ms", "--trials", "4", "--no-pruning")[0] == 0
    report, found = (pilot.out / "report.md").read_text(), json.loads((pilot.out / "search.json").read_text())
    page = (pilot.out / "report.html").read_text()
    assert "the first student by kd" in report and "first student by kd" in page
    assert "recipe as it is" not in report + page + json.dumps(found)
    assert found["best"] == 0 or "better than the first student by kd, trial 0, takes --seeds 3" in report


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--trials", "2"], "the autopilot needs a limit: --max-latency 2ms or --max-size 20MB"),
        ([*LIMITS], "name a budget"),
        (["--trials", "2", "--max-latency", "2"], "--max-latency 2: expected a number above 0 with ms or s"),
        (["--trials", "2", "--max-latency", "0ms"], "--max-latency 0ms: expected a number above 0"),
        (["--trials", "2", "--max-size", "2ms"], "--max-size 2ms: expected a number above 0 with kB or MB or GB"),
        (["--trials", "2", *LIMITS, "--metric", "f2"], "--metric f2: the task has accuracy"),
        (["--trials", "2", *LIMITS, "--grid", "paper"], "--grid: the autopilot .* chooses it itself"),
    ],
)
def test_wrong_options(pilot, options, expected):
    code, _, errors = pilot(*options)
    assert code == 2 and re.search(expected, errors) and len(errors.splitlines()) == 1
    assert not pilot.runs.run and not pilot.out.exists()


def test_the_limits_and_their_units():
    assert limits_of("2ms", "20MB") == limits_of("0.002 s", "20000kB")
    with pytest.raises(CrossdistilError, match="expected a number"):
        limits_of("fast", None)


def teacher(config) -> Model:
    return Model(config, {}, 2, ("no", "yes"))


def test_students_of_a_bert():
    config = tiny.CONFIG.model_copy(update={"num_hidden_layers": 6, "hidden_size": 48})
    found = list(students_of(teacher(config)))
    names = [student.name for student in found]
    assert names[:5] == [
        "3 layers x 48, from layers 0 2 4",
        "3 layers x 48, from layers 0 1 2",
        "2 layers x 48, from layers 0 3",
        "2 layers x 48, from layers 0 1",
        "1 layer x 48, from layer 0",
    ]
    assert names[5:] == [f"{count} layer{'s' * (count > 1)} x {width}, random" for width in (24, 12) for count in (6, 3, 2, 1)]
    assert dict(found[5].settings)["student.architecture"] == {"num_hidden_layers": 6, "hidden_size": 24, "intermediate_size": 24}


def test_shared_layers_are_not_chosen():
    config = AlbertConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64, embedding_size=8)
    first = next(students_of(teacher(config)))
    assert first.name == "1 layer x 32, from the teacher" and dict(first.settings)["student.init"] == {"from": "teacher"}
