"""A metric of a user's own file chooses the best state and scores the student; a wrong one is told with its line."""

from __future__ import annotations

import json
import re

import pytest

from crossdistil.tests.plugin_files import LOSS, write_recipe, write_world


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


METRIC = """
import numpy as np
from crossdistil import register_metric


def error_rate(logits, labels):
    return -np.mean(logits.argmax(axis=1) != labels)


register_metric("fewest_errors", error_rate)
"""


@pytest.fixture
def with_metric(world):
    (world / "my_losses.py").write_text(LOSS + METRIC)
    tree = json.loads(write_recipe(world, steps=2).read_text())
    tree["task"]["metrics"] = ["fewest_errors", "accuracy"]
    (world / "recipe.yaml").write_text(json.dumps(tree))
    return world


@pytest.mark.only_backend("torch")
def test_a_metric_of_a_file_chooses_the_best_and_scores_the_student(with_metric, said):
    out, data = with_metric / "out", with_metric / "task"
    code, printed, errors = said("run", with_metric / "recipe.yaml", "--out", out, "--backend", "torch")
    assert code == 0, errors
    assert "loss apart, metric fewest_errors" in printed
    metrics = json.loads((out / "result.json").read_text())["student"]["metrics"]
    assert list(metrics) == ["fewest_errors", "accuracy"]
    assert metrics["fewest_errors"] == pytest.approx(metrics["accuracy"] - 1)
    plugin = ["--plugin", with_metric / "my_losses.py"]
    code, printed, errors = said("evaluate", out, "--data", data, "--backend", "torch", *plugin)
    assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(metrics), errors
    code, _, errors = said("evaluate", out, "--data", data, "--backend", "torch")
    assert code == 2 and f"{out}: was trained with the metric fewest_errors of a plugin" in errors
    assert f"--plugin {with_metric / 'my_losses.py'}" in errors and "did you mean" not in errors
    code, printed, errors = said("compare", out / "student", out, "--data", data, "--backend", "torch", "--json")
    assert code == 0, errors
    assert "was trained with the metric fewest_errors of a plugin, left out here" in errors
    assert [pair["metric"] for pair in json.loads(printed)["pairs"]] == ["accuracy"]


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("return -np.mean(", "return float('nan') * np.mean(", r"py:35: metric 'fewest_errors' returns nan, expected"),
        ("return -np.mean(", "return +np.array([[1]]) * (", r"py:35: metric 'fewest_errors' returns .*, expected"),
        ("!= labels", "!= labels[:2]", r"my_losses.py:36: metric 'fewest_errors' fails: "),
        ("return -np.mean(", "return exit(0) or (", r"my_losses.py:36: SystemExit: 0"),
        ('"fewest_errors"', '"accuracy"', r"my_losses.py:39: metric 'accuracy': crossdistil has one of this name"),
        ('"fewest_errors"', '"fewest_error"', r"task.metrics: 'fewest_errors' is no metric for this task; did you mean"),
        ("error_rate)", "3)", r"my_losses.py:39: metric 'fewest_errors': expected a function, got 3"),
        ("error_rate)", "error_rate, tasks=['regression'])", r"task.metrics: 'fewest_errors' is no metric for this task"),
    ],
)
def test_a_wrong_metric_is_told_with_its_line(with_metric, before, after, message, said):
    (with_metric / "my_losses.py").write_text(LOSS + METRIC.replace(before, after))
    code, _, errors = said("run", with_metric / "recipe.yaml", "--out", with_metric / "out", "--backend", "torch")
    assert code == 2 and re.search(message, errors), errors
    assert len(errors.splitlines()) == 1
