"""What plugins bring beside losses and metrics: schedules."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from crossdistil.core.errors import CrossdistilError, RecipeError
from crossdistil.core.recipe import load_recipe, parse_recipe
from crossdistil.tests import tiny

SCHEDULE = """
from crossdistil import register_schedule


def halves(progress):
    return 0.5 ** (4 * progress)


register_schedule("halves", halves)
"""


def write_recipe(folder: Path, code: str, **train) -> Path:
    (folder / "mine.py").write_text(code)
    tree = tiny.kd_recipe(folder / "task", folder / "model", **train)
    tree["plugins"] = ["mine.py"]
    (folder / "recipe.yaml").write_text(json.dumps(tree))
    return folder / "recipe.yaml"


@pytest.fixture
def world(tmp_path):
    tiny.write_task(tmp_path / "task", 24, 12)
    tiny.write_model(tmp_path / "model")
    return tmp_path


def test_a_schedule_is_chosen_by_its_name_and_warms_up_as_every_other(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path, SCHEDULE, steps=10, schedule="halves", warmup=0.2))
    factor = recipe.stages[0].train.factor(10)
    expected = [0, 0.5, *(0.5 ** (4 * step / 8) for step in range(8))]
    assert [factor(step) for step in range(10)] == pytest.approx(expected)
    again = parse_recipe(json.loads(json.dumps(recipe.resolved())), "again")
    assert again.digest() == recipe.digest() and again.stages[0].train.factor(10)(5) == factor(5)
    with pytest.raises(RecipeError, match=r"stages\[0\].train.schedule: unknown value 'halfs'; did you mean 'halves'"):
        load_recipe(write_recipe(tmp_path, SCHEDULE, steps=10, schedule="halfs"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("0.5 **", "-0.5 **", r"mine.py:5: schedule 'halves' returns -1.0 at 0, expected a finite number from 0 on"),
        ("0.5 **", "float('inf') *", r"mine.py:5: schedule 'halves' returns nan at 0"),
        ("(4 * progress)", "(1 / progress)", r"mine.py:6: schedule 'halves' fails at 0: ZeroDivisionError"),
        ('"halves"', '"cosine"', r"mine.py:9: schedule 'cosine': crossdistil has one of this name"),
        (", halves)", ", 3)", r"mine.py:9: schedule 'halves': expected a function, got 3"),
    ],
)
def test_a_wrong_schedule_is_told_with_its_line(tmp_path, before, after, message):
    with pytest.raises(CrossdistilError) as raised:
        load_recipe(write_recipe(tmp_path, SCHEDULE.replace(before, after), steps=2))
    assert re.search(message, str(raised.value)) and len(str(raised.value).splitlines()) == 1, raised.value


@pytest.mark.only_backend("torch")
def test_a_run_takes_the_learning_rates_of_a_schedule(world, said):
    recipe = write_recipe(world, SCHEDULE, steps=4, schedule="halves", warmup=0, log_every=1, learning_rate=1e-3)
    code, printed, errors = said("run", recipe, "--out", world / "out", "--backend", "torch")
    assert code == 0 and "schedule halves" in printed, errors
    lines = [json.loads(line) for line in (world / "out" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates == pytest.approx([1e-3 * math.pow(0.5, step) for step in range(4)])
