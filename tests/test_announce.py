"""What a run says before its first step of schedules that do not fit its length."""

from __future__ import annotations

import pytest

from crossdistil.core.app.announce import job_lines, warnings
from crossdistil.core.job import prepare
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("announce")
    tiny.write_task(folder / "task")
    tiny.write_model(folder / "teacher", tiny.CONFIG.model_copy(update={"num_hidden_layers": 2}))

    def make(until, warmup, steps=50, rate=0.3, schedule="linear"):
        tree = tiny.kd_recipe(folder / "task", folder / "teacher", steps=steps, warmup=warmup)
        tree["stages"][0]["objective"] = [{"loss": "hard_label"}]
        tree["stages"][0]["replacement"] = {"schedule": schedule, "rate": rate, "until": until}
        made = prepare(parse_recipe(tree, "test"), "test", 1)
        return made, [made.stage(0)]

    return make


@pytest.mark.parametrize(
    ("until", "text"),
    [
        (0.5, "all from step 25 of 50 on"),
        (49, "all from step 49 of 50 on"),
        (2500, "to the end, step 50"),
        (None, "to the end, step 50"),
    ],
)
def test_when_modules_are_replaced(job, until, text):
    assert f"  modules replaced with probability 0.3, rising; {text}" in job_lines(*job(until, 0.1))


def test_a_schedule_longer_than_its_stage_is_told(job):
    assert warnings(job(0.999, 0.1)[1]) == [
        "stages[0].replacement.until: 0.999 of the steps, and the stage has 50: the student is never trained alone"
    ]
    assert warnings(job(2500, 50)[1]) == [
        "stages[0].replacement.until: 2500 steps, and the stage has 50: the student is never trained alone",
        "stages[0].train.warmup: 50 steps, and the stage has 50: the learning rate never reaches its peak",
    ]
    assert warnings(job(50, 0.1, rate=0.0, schedule="constant")[1])[1:] == [
        "stages[0].replacement.rate: 0 to the end: the student is never trained at all"
    ]
    # To the end on purpose, and a last step alone.
    assert warnings(job(None, 0.1)[1]) == warnings(job(49, 49)[1]) == []
