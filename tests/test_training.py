"""The training loop, driven by a train step that computes nothing: which step comes when, what is logged, evaluated, kept
and saved. No framework is needed for it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from crossdistil.core.errors import TrainingError
from crossdistil.core.schedules import in_steps, schedule
from crossdistil.core.step_plan import Plan
from crossdistil.core.train_section import TrainSection
from crossdistil.tests.trainer_bench import Bench, CountingStep


def test_the_events_of_a_plan():
    plan = Plan(total=20, steps_per_epoch=6, log_every=4, evaluate_every=6, save_every=5)
    events, step = [], 0
    while step < plan.total:
        step = plan.next_event(step)
        events.append(step)
    assert events == [4, 5, 6, 8, 10, 12, 15, 16, 18, 20]


@pytest.mark.parametrize(
    ("length", "total"),
    [({"steps": 5}, 5), ({"epochs": 3}, 21), ({"epochs": 0.5}, 4), ({"epochs": 0.01}, 1), ({"epochs": 1.5}, 11)],
)
def test_the_number_of_steps_of_a_plan(tmp_path, length, total):
    train = Bench(tmp_path, **length).recipe.stages[0].train
    plan = Plan.of(train, steps_per_epoch=7)
    assert plan.total == total
    assert plan.evaluate_every == 7  # once an epoch, unless the recipe says otherwise


def test_exactly_the_planned_steps_in_chunks_between_events(tmp_path):
    bench = Bench(tmp_path, steps=11, log_every=4, save_every=5, evaluate_every=6)
    outcome = bench.train()
    assert bench.step.calls == [4, 1, 1, 2, 2, 1]
    assert outcome.steps == len(bench.step.taken) == 11
    assert bench.evaluations == [6, 11]
    # Five and a half epochs of 42 tokens; the last step has 3 or 4 of the 7 examples.
    assert 5 * 42 < outcome.tokens < 6 * 42
    whole = [batch for step in bench.step.taken[:10] for batch in step.micro_batches]
    assert sum(batch["attention_mask"].sum() - (batch["example_mask"] == 0).sum() for batch in whole) == 5 * 42


def test_steps_have_their_own_seeds_and_the_batches_of_their_epoch(tmp_path):
    bench = Bench(tmp_path, steps=4)
    bench.train()
    seeds = [step.seed for step in bench.step.taken]
    assert len(set(seeds)) == 4 and all(0 <= seed < 2**31 for seed in seeds)
    ids = [step.micro_batches[0]["input_ids"] for step in bench.step.taken]
    for epoch in (ids[:2], ids[2:]):
        rows = np.concatenate(epoch)
        assert np.unique(rows[rows > 0]).size == 41  # tokens 1 to 41; 0 is padding too
    counts = [step.micro_batches[0]["denominators"].tolist() for step in bench.step.taken]
    # Of the two terms, and of the teacher's entropy.
    assert sorted(map(tuple, counts)) == [(3, 3, 3), (3, 3, 3), (4, 4, 4), (4, 4, 4)]


SCHEDULES = {
    # 10 steps, 4 of warm-up: 0, 1/4, 2/4, 3/4, then 1 down to 1/6.
    ("linear", 10, 4): [0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6],
    ("linear", 4, 0): [1, 0.75, 0.5, 0.25],
    ("constant", 5, 2): [0, 0.5, 1, 1, 1],
    ("cosine", 6, 2): [0, 0.5, 1, 0.5 * (1 + math.sqrt(0.5)), 0.5, 0.5 * (1 - math.sqrt(0.5))],
    # p = 0, 1/2, 1, 2/3, 1/3 and (1 + 31 p) / 32.
    ("slanted_triangular", 5, 2): [1 / 32, 16.5 / 32, 1, (1 + 31 * 2 / 3) / 32, (1 + 31 / 3) / 32],
}


@pytest.mark.parametrize(("key", "expected"), SCHEDULES.items(), ids=[f"{k[0]}-{k[1]}-{k[2]}" for k in SCHEDULES])
def test_schedules_by_hand(tmp_path, key, expected):
    name, total, warmup = key
    factor = schedule(name, total, warmup)
    assert [factor(step) for step in range(total)] == pytest.approx(expected)
    # The loop gives each step its own factor, and logs the rate that the step had.
    bench = Bench(tmp_path, steps=total, schedule=name, warmup=float(warmup), learning_rate=0.5, log_every=1)
    bench.train()
    rates = [0.5 * value for value in expected]
    assert [step.learning_rate for step in bench.step.taken] == pytest.approx(rates)
    assert [line["learning_rate"] for line in bench.lines("loss")] == pytest.approx(rates)


@pytest.mark.parametrize(("ratio", "expected"), [(2, [0.5, 0.75, 1, 5 / 6, 2 / 3]), (1, [1] * 5)])
def test_the_lowest_rate_of_a_slanted_triangle(tmp_path, ratio, expected):
    settings = {"schedule": "slanted_triangular", "slanted_ratio": ratio, "warmup": 2.0, "learning_rate": 1.0}
    bench = Bench(tmp_path, steps=5, **settings)
    bench.train()
    assert [step.learning_rate for step in bench.step.taken] == pytest.approx(expected)
    with pytest.raises(ValidationError, match="slanted_ratio is for the schedule 'slanted_triangular', not 'cosine'"):
        TrainSection(steps=5, **settings | {"schedule": "cosine"})


def test_warmup_is_a_share_or_a_number():
    assert [in_steps(warmup, 200) for warmup in (0, 0.1, 0.999, 1, 7.0, 300)] == [0, 20, 200, 1, 7, 300]
    assert schedule("linear", 3, 10)(2) == pytest.approx(0.2)  # a warm-up longer than the training


def test_log_lines_are_means_over_their_interval(tmp_path):
    bench = Bench(tmp_path, steps=7, log_every=3, save_every=2, evaluate_every=100)
    bench.train()
    lines = bench.lines("loss")
    assert [line["step"] for line in lines] == [3, 6, 7]
    assert [line["loss"] for line in lines] == pytest.approx([20, 50, 70])
    assert [line["terms"] for line in lines] == [{"kd_ce": 2 * x, "hard_label": 3 * x} for x in (20, 50, 70)]
    assert [line["epoch"] for line in lines] == [1.5, 3.0, 3.5]
    for line in lines:
        assert list(line) == ["step", "stage", "epoch", "loss", "terms", "learning_rate", "tokens_per_second"]
        assert line["stage"] == "distil"
        assert line["tokens_per_second"] > 0
    watched = [json.loads(line) for line in (tmp_path / "run" / "watched.jsonl").read_text().splitlines()]
    assert [(line["step"], line["gradient_norm"]) for line in watched] == [(3, 80), (6, 200), (7, 280)]
    entropy = [line["teacher_entropy"] for line in watched]
    assert entropy == [{"loss": x / 2, "terms": {"kd_ce": x}} for x in (20, 50, 70)]  # kd_ce weighs 0.5
    assert [event.shown_loss for event in bench.progress.events] == [10, 25, 35]
    assert [event.shown_terms for event in bench.progress.events] == [{"kd_ce": x, "hard_label": 3 * x} for x in (20, 50, 70)]
    assert bench.lines("evaluation") == [
        {"step": 7, "stage": "distil", "epoch": 3.5, "evaluation": {"dev": {"accuracy": 0.5, "f1": 0.25}}}
    ]


def test_a_gradient_that_is_not_finite_ends_the_run_unless_a_loss_scale_leaves_it_out(tmp_path):
    bench = Bench(tmp_path, steps=4, log_every=2)
    told = r"step 3: the loss is 30 \(kd_ce 60, hard_label 90\), and the norm of the gradient is inf"
    with pytest.raises(TrainingError, match=told):
        bench.train(step=CountingStep(norms={3: math.inf}))
    scaled = CountingStep(norms={1: math.inf, 3: math.inf, 4: math.inf})
    scaled.skips_overflow = True
    (tmp_path / "scaled").mkdir()
    bench = Bench(tmp_path / "scaled", steps=4, log_every=2)
    bench.train(step=scaled)
    assert [event.gradient_norm for event in bench.progress.events] == [80, None]


@pytest.mark.parametrize(("keep", "kept"), [("best", 4), ("last", 7)])
def test_the_best_evaluation_or_the_last_step_is_kept(tmp_path, keep, kept):
    # Evaluations after steps 2, 4, 6 and 7; the second one is the first of the two best.
    bench = Bench(tmp_path, scores=[0.4, 0.8, 0.8, 0.6], steps=7, keep=keep)
    outcome = bench.train()
    assert (outcome.kept_step, outcome.parameters["p"][0], *outcome.evaluation.logits) == (kept, kept, kept)
    assert set(outcome.parameters) == {"p", "untrained"}  # what is not trained is kept all the same
    assert bench.progress.best == [2, 4]


def test_the_best_survives_an_interruption(tmp_path):
    bench = Bench(tmp_path, scores=[0.4, 0.8, 0.5, 0.6], steps=7, save_every=1)
    with pytest.raises(TrainingError):
        bench.train(bad={6: math.nan})
    outcome = bench.train(resume=True)
    assert bench.step.calls == [1, 1]  # steps 6 and 7
    assert (outcome.kept_step, outcome.parameters["p"][0], outcome.evaluation) == (4, 4, None)  # of a step before
    assert [line["step"] for line in bench.lines("loss") + bench.lines("evaluation")] == [7, 2, 4, 6, 7]
    assert bench.lines("loss")[0]["loss"] == pytest.approx(40)  # the mean over all seven, five of them before


def test_an_interrupted_run_takes_the_steps_of_an_unbroken_one(tmp_path):
    settings = {"steps": 9, "save_every": 3, "log_every": 2, "evaluate_every": 4}
    whole, broken = Bench(tmp_path / "whole", **settings), Bench(tmp_path / "broken", **settings)
    whole.train()
    with pytest.raises(TrainingError):
        broken.train(bad={5: math.nan})  # after a log line and an evaluation that follow the last state
    broken.train(resume=True)
    assert len(broken.step.taken) == 6  # from the saved state on, which lies within an epoch
    for found, expected in zip(broken.step.taken, whole.step.taken[3:], strict=True):
        assert (found.seed, found.learning_rate) == (expected.seed, expected.learning_rate)
        np.testing.assert_array_equal(found.micro_batches[0]["input_ids"], expected.micro_batches[0]["input_ids"])
    for key in ("loss", "evaluation"):
        lines, others = broken.lines(key), whole.lines(key)
        assert [line["step"] for line in lines] == [line["step"] for line in others]
        assert [line.get("loss") for line in lines] == [line.get("loss") for line in others]


def test_a_stage_counts_on_from_those_before_it(tmp_path):
    settings = {"steps": 7, "log_every": 3, "save_every": 5, "evaluate_every": 4}
    alone, later = Bench(tmp_path / "alone", **settings), Bench(tmp_path / "later", **settings)
    alone.train()
    outcome = later.train(first=100)
    assert [line["step"] for line in later.lines("loss")] == [103, 106, 107]
    assert [line["step"] for line in later.lines("evaluation")] == [104, 107]
    assert [path.name for path in (tmp_path / "later" / "run" / "state").iterdir()] == ["step-00000107"]
    assert (outcome.steps, outcome.kept_step, *outcome.evaluation.logits) == (7, 104, 4)
    # Everything else is counted within the stage; only dropout goes on, so that no two steps of a run share a mask.
    for key in ("epoch", "learning_rate", "loss"):
        assert [line[key] for line in later.lines("loss")] == [line[key] for line in alone.lines("loss")]
    seeds = [{step.seed for step in bench.step.taken} for bench in (alone, later)]
    assert len(seeds[0] | seeds[1]) == 14


def test_a_stage_without_answers_is_not_evaluated_and_its_end_is_kept(tmp_path):
    bench = Bench(tmp_path, steps=7, evaluate_every=2, keep="best")
    outcome = bench.train(evaluated=False)
    assert bench.evaluations == [] and bench.lines("evaluation") == []
    assert (outcome.kept_step, outcome.parameters["p"][0], outcome.evaluation) == (7, 7, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, value):
    bench = Bench(tmp_path, steps=10, log_every=5, save_every=2, evaluate_every=4)
    with pytest.raises(TrainingError, match=rf"step 7: the loss is {value:g} \(kd_ce {value:g}, hard_label {value:g}\)"):
        bench.train(bad={7: value})
    states = list((tmp_path / "run" / "state").iterdir())
    assert [path.name for path in states] == ["step-00000006"]
    notes = json.loads((states[0] / "state.json").read_text())
    assert notes["step"] == 6 and notes["best_step"] == 4
    assert not (tmp_path / "run" / "result.json").exists()
    assert [line["step"] for line in bench.lines("loss")] == [5]


def test_weights_that_are_not_finite_are_neither_saved_nor_kept(tmp_path):
    class Diverging(CountingStep):
        def parameters(self):
            return {"p": np.array([self.position, np.inf if self.position > 3 else 0])}

    bench = Bench(tmp_path, steps=8, save_every=3, evaluate_every=4)
    with pytest.raises(TrainingError, match=r"step 4: p is not finite"):
        bench.train(step=Diverging())
    assert bench.evaluations == []
    bench = Bench(tmp_path / "saving", steps=8, save_every=4, evaluate_every=8)
    with pytest.raises(TrainingError, match=r"step 4: p is not finite"):
        bench.train(step=Diverging())
    assert not (tmp_path / "saving" / "run" / "state").exists()
