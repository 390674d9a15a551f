"""Cutting a batch into micro-batches changes the memory that is needed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.data.batches import TrainBatches
from crossdistil.core.data.tokenize import TokenTable
from crossdistil.core.engine import Step
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.tests import tiny

BATCH, EXAMPLES, TOLERANCE = 8, 21, 1e-6
STUDENT = tiny.STILL.model_copy(update={"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24})
# An epsilon far above rounding: with a small one, Adam turns the sign of a gradient that is zero but for rounding (that of
# a key's bias) into a whole step.
SPEC = OptimizerSpec("adamw", epsilon=1e-2, weight_decay=0.1)


def make_batches(accumulation: int) -> TrainBatches:
    generator = np.random.default_rng(4)
    lengths = generator.integers(3, 9, EXAMPLES)
    lengths[[3, 11]] = 15, 16
    ids = generator.integers(5, STUDENT.vocab_size, lengths.sum())
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    firsts = generator.integers(1, lengths + 1).astype(np.int32)
    table = TokenTable(ids.astype(np.int32), offsets, firsts)
    labels = generator.integers(0, 2, EXAMPLES).astype(np.int32)
    return TrainBatches(table, labels, BATCH, accumulation, (8, 16), seed=5)


@pytest.fixture(scope="module")
def train(engine):
    """Two epochs with this accumulation: the values of each step and the weights after them."""
    term = LOSSES["hard_label"](loss="hard_label", weight=0.5)
    objective = Objective([term], TermContext(2, False, STUDENT), Teachers({}))
    student = tiny.random_parameters(STUDENT, seed=1)

    def run(accumulation):
        batches = make_batches(accumulation)
        steps = [
            Step(objective.prepare(micro_batches), 1e-2, seed=0)
            for epoch in range(2)
            for micro_batches in batches.epoch(epoch)
        ]
        assert len(steps) == 6
        step = engine.train_step(objective.function, student, {}, SPEC)
        return steps, step.run(iter(steps), len(steps)).fetch(), step.parameters()

    return run


@pytest.fixture(scope="module")
def whole(train):
    return train(1)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_changes_nothing(train, whole, accumulation):
    _, expected_values, expected = whole
    steps, values, parameters = train(accumulation)
    micro_batches = [micro for step in steps for micro in step.micro_batches]
    assert {len(step.micro_batches) for step in steps} == {accumulation}
    # The premises: some steps mix lengths, some micro-batches are incomplete and some have no example at all.
    assert any(len({micro["input_ids"].shape for micro in step.micro_batches}) > 1 for step in steps)
    real = [micro["example_mask"].sum() for micro in micro_batches]
    assert sum(real) == 2 * EXAMPLES and any(0 < count < BATCH / accumulation for count in real)
    np.testing.assert_allclose(values, expected_values, rtol=TOLERANCE)
    student = tiny.random_parameters(STUDENT, seed=1)
    for name, array in parameters.items():
        np.testing.assert_allclose(array, expected[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    moved = {name: np.abs(array - student[name]).max() for name, array in parameters.items()}
    assert moved["classifier.weight"] > 1e-2
