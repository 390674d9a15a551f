"""`crossdistil search` as it is typed: what is refused before anything is trained, what it leaves, what it says of the best."""

from __future__ import annotations

import json
import re
import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from crossdistil.core.app import search as search_module
from crossdistil.core.app.search_results import front, verdict
from crossdistil.core.recipe import load_recipe
from crossdistil.tests import tiny
from crossdistil.tests.compared import answers, write_run
from crossdistil.tests.searches import BATCH, SPACE, Runs, score

pytestmark = pytest.mark.environment_of("torch", "mindspore")  # whose environment has Optuna


@pytest.fixture
def recipe_file(tmp_path, tiny_task, tiny_model):
    """A recipe with a space, a grid, and its data and teacher."""
    grids = {"paper": {"source": "Someone 2020", "space": {BATCH: {"choice": [8, 16]}}}}
    tree = tiny.kd_recipe(tiny_task, tiny_model) | {"search": SPACE, "grids": grids}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(tree))
    return path


@pytest.fixture
def runs(monkeypatch):
    """Runs that end at once."""
    found = Runs()
    monkeypatch.setattr(search_module, "run_trial", found)
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "search: name a budget: --minutes or --trials"),
        (["--minutes", "0"], "--minutes 0: expected a number above 0"),
        (["--trials", "3", "--metric", "acuracy"], "--metric acuracy: the task has accuracy; did you mean 'accuracy'"),
        (["--grid", "papr"], "--grid 'papr': not one of its grids; did you mean 'paper'"),
        (["--grid", "paper", "--space", "SPACE"], "--grid: is a space of its own, and --space another"),
        (["--trials", "3", "--space", "SPACE"], "SPACE: stages.0.train.epohcs: .*did you mean 'epochs'"),
        (["--trials", "3", "--study", "x"], "--study: is the name in a --storage"),
        (["--trials", "3", "--max-latency", "2ms"], "--max-latency: is of the autopilot, which needs --teacher and no recipe"),
        (["--trials", "3", "--teacher", "x", "--data", "y"], "RECIPE: the autopilot .* chooses it itself"),
        (["--resume"], "--resume: name the folder of the search with --out"),
        (["--resume", "--out", "OUT"], "RECIPE: is as it was when the search in .* was started"),
        (["--trials", "3", "--set", "teacher.model=nowhere"], "teacher.model: .*nowhere"),
        (["--trials", "3", "--storage", "nonsense://x"], "--storage nonsense://x: cannot be opened"),
        (["--trials", "3", "--space", "DEEP"], "student.architecture.num_hidden_layers: 5: .*student.init.layers"),
    ],
)
def test_what_is_refused_is_one_line_before_anything_is_trained(said, recipe_file, runs, tmp_path, arguments, expected):
    (tmp_path / "SPACE").write_text('{"stages.0.train.epohcs": {"choice": [1]}}')
    (tmp_path / "DEEP").write_text('{"student.architecture.num_hidden_layers": {"int": [1, 5]}}')
    arguments = [str(tmp_path / each) if each in ("SPACE", "DEEP", "OUT") else each for each in arguments]
    out = [] if "--out" in arguments else ["--out", tmp_path / "OUT"] if "--resume" not in arguments else []
    code, _, errors = said("search", recipe_file, *arguments, *out)
    lines = errors.strip().splitlines()
    assert code == 2 and len(lines) == 1 and re.search(expected, lines[0].replace(f"{tmp_path}/", "")), errors
    assert not runs.run and not (tmp_path / "OUT").exists()


def test_a_space_and_a_recipe_that_are_wrong_are_told_at_once(said, recipe_file, tmp_path):
    (tmp_path / "SPACE").write_text('{"stages.0.train.epohcs": {"choice": [1]}}')
    options = ["--trials", "3", "--space", tmp_path / "SPACE", "--set", "teacher.model=nowhere"]
    code, _, errors = said("search", recipe_file, *options, "--out", tmp_path / "out")
    assert code == 2 and len(errors.splitlines()) == 2 and "epohcs" in errors and "nowhere" in errors


def test_a_recipe_without_a_space(said, tmp_path):
    (tmp_path / "plain.yaml").write_text(json.dumps(tiny.kd_recipe(tmp_path, tmp_path)))
    code, _, errors = said("search", tmp_path / "plain.yaml", "--trials", "3")
    assert code == 2 and "search: missing: what may change; give it there, or in a file with --space" in errors


def test_what_a_search_leaves(said, recipe_file, runs, tmp_path):
    out = tmp_path / "out"
    code, output, errors = said("search", recipe_file, "--trials", "6", "--out", out, "--no-pruning")
    assert (code, errors) == (0, "")
    found = json.loads((out / "search.json").read_text())
    assert found["counts"]["complete"] == 6 and found["default"] == 0
    scores = {trial["number"]: trial["score"] for trial in found["trials"]}
    assert found["best"] == max(scores, key=lambda number: (scores[number], -number))
    best = load_recipe(out / "best.yaml")
    assert score(best) == scores[found["best"]]
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert page.count('class="chart"') == 3  # curves, and a slice for each of two keys
    assert f"trial {found['best']}: " in output and "Chosen by one seed" in page and "takes --seeds 3" in text
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == 6

    code, _, errors = said("search", recipe_file, "--trials", "6", "--out", out)
    assert code == 2 and "holds another search; choose a new folder, or --resume" in errors
    code, output, _ = said("search", "--resume", "--out", out, "--trials", "8")
    assert code == 0 and runs.run == [f"{number:04d}" for number in range(8)]
    assert re.search(r"6 trials are there already, which took \d+s\n", output)
    output = said("search", "--resume", "--out", out)[1]
    assert re.search(r"8 trials are there already, which took \d+s; nothing is left to do unless --trials is larger\n", output)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_search_goes_on_with_the_same_data_alone(said, tmp_path, tiny_model, runs, split):
    """Scores of trials that learned from, or were scored on, other data cannot be compared."""
    data, out = tiny.write_task(tmp_path / "data"), tmp_path / "out"
    (tmp_path / "recipe.yaml").write_text(json.dumps(tiny.kd_recipe(data, tiny_model) | {"search": SPACE}))
    assert said("search", tmp_path / "recipe.yaml", "--trials", "2", "--out", out)[0] == 0
    file = data / f"{split}.tsv"
    kept = file.read_text(encoding="utf-8")
    file.write_text(re.sub("0$", "1", kept.rstrip("\n")) + "\n" + kept.partition("\n")[2].partition("\n")[0] + "\n")
    assert said("search", "--resume", "--out", out)[0] == 0  # nothing is left to do
    code, _, errors = said("search", "--resume", "--out", out, "--trials", "3")
    assert code == 2 and re.search(f"out: was started with other data, .*: the .* {split}.* changed since", errors), errors
    assert len(runs.run) == 2
    file.write_text(kept, encoding="utf-8")
    assert said("search", "--resume", "--out", out)[0] == 0 and len(runs.run) == 3


def test_one_is_singular(said, recipe_file, runs, tmp_path):
    out = tmp_path / "out"
    output = said("search", recipe_file, "--trials", "1", "--minutes", "1", "--out", out)[1]
    assert f"into {out}: 1 minute, 1 trial\n" in output
    assert "Budget: 1 minute, 1 trial;" in (out / "report.md").read_text()
    assert "1 trial is there already, which took" in said("search", "--resume", "--out", out)[1]


def test_a_grid_needs_no_budget(said, recipe_file, runs, tmp_path):
    code, output, _ = said("search", recipe_file, "--grid", "paper", "--out", tmp_path / "out")
    assert code == 0 and runs.run == ["0000", "0001"] and "grid of Someone 2020" in output
    assert "Grid: Someone 2020" in (tmp_path / "out/report.html").read_text()


def test_no_trial_comes_to_its_end(said, recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "run_trial", Runs({"0000": "the loss is nan", "0001": "it ended with signal SIGKILL"}))
    code, output, errors = said("search", recipe_file, "--trials", "2", "--out", tmp_path / "out")
    assert code == 2 and "no trial came to its end" in errors
    assert "failed: the loss is nan" in output and "SIGKILL" in (tmp_path / "out/report.md").read_text()


def test_the_best_and_the_default_with_other_seeds(said, recipe_file, tmp_path, monkeypatch):
    """The runs with other seeds keep answers, and the comparison of the two is that of `compare`."""
    labels = np.random.default_rng(0).integers(0, 2, 400).astype(np.int32)

    def run(own, folder, on, watch, asked):
        from crossdistil.core.app.search_trial import Ended
        from crossdistil.core.run_result import read_result

        if folder.parent.name != "seeds":
            return Runs()(own, folder, on, watch, asked)
        share = 0.95 if folder.name.startswith("best") else 0.7
        right = np.random.default_rng(own.seed).random(400) < share
        settings = [f"{BATCH}={own.stages[0].train.batch_size}"]
        write_run(folder, answers(labels, right), labels, seed=own.seed, overrides=tuple(settings))
        return Ended("complete", read_result(folder))

    monkeypatch.setattr(search_module, "run_trial", run)
    out = tmp_path / "out"
    code, output, _ = said("search", recipe_file, "--grid", "paper", "--seeds", "3", "--out", out)
    found = json.loads((out / "search.json").read_text())
    assert code == 0 and (found["best"], found["default"]) == (1, 0)
    assert sorted(path.name for path in (out / "seeds").iterdir()) == [
        *(f"best-0001-seed-{seed}" for seed in (10, 8, 9)),
        *(f"default-seed-{seed}" for seed in (10, 8, 9)),
    ]  # 7 is the seed that they were chosen by
    assert found["verdict"]["word"] == "better" and found["comparison"]["pairs"][0]["better"] == "B"
    assert "The best is better than the recipe's default" in output
    output = said("search", "--resume", "--out", out)[1]
    assert "nothing is left to do\n" in output and "with other seeds, of" not in output
    assert "2 runs with other seeds, of" in said("search", "--resume", "--out", out, "--seeds", "4")[1]


def test_a_score_of_one_class_is_tested_where_it_is_searched_for(tmp_path):
    from crossdistil.core.app.search_results import _with_seeds

    labels, metric, runs = np.random.default_rng(0).integers(0, 2, 400).astype(np.int32), "f1/positive", []
    for name, share in (("default", 0.7), ("best", 0.95)):
        for seed in (8, 9, 10):
            folder, right = tmp_path / f"{name}-{seed}", np.random.default_rng(seed).random(400) < share
            student = {"metrics": {"accuracy": share, metric: share}, "parameters": 1}
            write_run(folder, answers(labels, right), labels, seed=seed, overrides=(f"{BATCH}={len(name)}",), student=student)
            runs.append((name, seed, folder))
    settings = SimpleNamespace(seeds=3, metric=metric, recipe=None)
    found, _ = _with_seeds(SimpleNamespace(folder=tmp_path, settings=settings, seed_runs=lambda best: runs), {})
    (pair,) = found["pairs"]
    assert (pair["metric"], pair["better"]) == (metric, "B")


def seeds(best, default, p=None, better=None):
    """The part of search.json that a verdict is of."""
    sides = {"best": best, "default": default}
    found = {"metric": "accuracy", "higher_is_better": True, "comparison": None}
    found["seeds"] = {
        side: {"scores": values, "mean": statistics.fmean(values), "deviation": statistics.stdev(values) if values[1:] else None}
        for side, values in sides.items()
    }
    if p is not None:
        found["comparison"] = {"pairs": [{"metric": "accuracy", "p": p, "better": better}]}
    return found


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (seeds([0.91, 0.92, 0.93], [0.80, 0.81, 0.82], 0.001, "B"), "better"),
        (seeds([0.91, 0.92, 0.93], [0.80, 0.81, 0.82], 0.2), "above"),
        (seeds([0.91, 0.92, 0.93], [0.80, 0.81, 0.82]), "above"),  # nothing to compare row by row
        (seeds([0.82, 0.83, 0.84], [0.80, 0.83, 0.83], 0.001, "B"), "not better"),  # 0.01 above, deviation 0.017
        (seeds([0.80, 0.81, 0.82], [0.91, 0.92, 0.93], 0.001, "A"), "not better"),
        (seeds([0.92], [0.80], 0.001, "B"), "not better"),  # one seed has no deviation
    ],
)
def test_better_is_said_only_above_the_deviation(found, word):
    assert verdict(found)["word"] == word
    assert ("is better" in verdict(found)["text"]) == (word == "better")


def test_the_front_is_of_those_that_no_other_beats():
    def trial(number, score, latency):
        return {"number": number, "score": score, "latency_ms": latency}

    scores, latencies = (0.8, 0.9, 0.8, 0.85, None, 0.7), (2.0, 4.0, 1.0, 4.0, 0.5, 3.0)
    trials = [trial(number, *each) for number, each in enumerate(zip(scores, latencies, strict=True))]
    assert front(trials, "latency_ms", True) == [2, 1]
    assert front(trials, "latency_ms", False) == [2, 5]
    assert front(trials + [trial(6, 0.99, None)], "latency_ms", True) == [2, 1]
