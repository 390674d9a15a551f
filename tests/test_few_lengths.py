"""The lengths of batches where each shape is compiled: the cheapest of all choices, and the same rows whatever they are."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from crossdistil.core.app.announce import job_lines
from crossdistil.core.data.batches import TrainBatches, length_buckets, real_tokens
from crossdistil.core.data.few_lengths import COMPILATION, few_lengths
from crossdistil.core.job import prepare
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.test_batches import make_table


def all_costs(longest, steps, batch_size, lengths):
    """What each choice among `lengths` that holds the steps costs in padded tokens and compilations: by trying all of them."""
    taken = np.resize(longest, steps)
    for count in range(1, len(lengths) + 1):
        for chosen in itertools.combinations(lengths, count):
            if chosen[-1] >= taken.max():
                padded = np.array(chosen)[np.searchsorted(chosen, taken)]
                yield padded.sum() * batch_size + COMPILATION * len(set(padded.tolist())), chosen


@pytest.mark.parametrize("batch_size", [2, 16, 64])
@pytest.mark.parametrize("epochs", [1, 3, 40])
def test_few_lengths_are_the_cheapest_of_all_choices(batch_size, epochs):
    longest = np.random.default_rng(epochs).gamma(2.0, 5.0, 20).astype(int) + 1
    usual, multiples = (16, 32, 48, 64), range(4, 65, 4)
    steps = epochs * len(longest)
    shapes = len(set(np.searchsorted(usual, longest).tolist()))
    needed = [length for length in multiples if ((longest > length - 4) & (longest <= length)).any()]
    cost, _ = min(found for found in all_costs(longest, steps, batch_size, needed) if len(found[1]) <= shapes)
    chosen = few_lengths(longest, steps, batch_size, usual)
    padded = np.array(chosen)[np.searchsorted(chosen, np.resize(longest, steps))]
    assert padded.sum() * batch_size + COMPILATION * len(chosen) == cost and len(chosen) <= shapes
    usually = np.array(usual)[np.searchsorted(usual, np.resize(longest, steps))]
    assert cost <= usually.sum() * batch_size + COMPILATION * shapes


def test_few_lengths_of_the_first_steps_hold_the_texts_of_all():
    longest = np.array([5, 7, 30, 90])
    assert few_lengths(longest, 2, 1, (16, 32, 64, 90)) == (8, 90)
    assert few_lengths(longest, 10**6, 64, (16, 32, 64, 90)) == (8, 32, 90)
    assert few_lengths(np.array([0, 0]), 5, 4, (16, 32)) == (4,)
    assert few_lengths(np.array([3, 2]), 5, 4, (3,)) == (3,)


def test_batches_of_few_lengths_hold_the_same_rows_in_the_same_order():
    table, rows = make_table(70, longest=30)
    usual = TrainBatches(table, np.arange(70, dtype=np.int32), 2, 1, (16, 32, 48), seed=1)
    few = usual.with_few_lengths(10**6)
    assert usual.padded_lengths == (16, 32, 48) and len(few.padded_lengths) <= 2
    assert 0 <= few.padded_lengths[-1] - max(map(len, rows)) < 4
    for epoch in (0, 1):
        for (one,), (other,) in zip(usual.epoch(epoch), few.epoch(epoch), strict=True):
            np.testing.assert_array_equal(one["labels"], other["labels"])
            assert real_tokens(one) == real_tokens(other) and other["input_ids"].shape[1] in few.padded_lengths


def test_a_stage_pads_to_few_lengths_where_shapes_are_compiled_and_the_recipe_names_none(tiny_task, tiny_model):
    def prepared(length_step, **train):
        tree = tiny.kd_recipe(tiny_task, tiny_model, **{"length_buckets": None} | train)
        tree["task"] |= {"max_length": 40}
        return prepare(parse_recipe(tree, "test"), "test", length_step)

    job = prepared(None)
    [stage] = [job.stage(0)]
    longest = int(job.data.tokens["train"].lengths.max())
    lengths = stage.batches.padded_lengths
    assert 0 <= lengths[-1] - longest < 4 and lengths == prepared(None).stage(0).batches.padded_lengths
    assert f"stage distil: 12 steps, batch 8, padded to {', '.join(map(str, lengths))} tokens" in job_lines(job, [stage])
    assert prepared(None, length_buckets=[16]).stage(0).batches.padded_lengths == (16, 40)
    assert prepared(8).stage(0).batches.padded_lengths == length_buckets(40, 8)
    # Of a teacher with another tokenizer the lengths are its own: there, shapes are those of both.
    apart = dataclasses.replace(prepared(None), teacher_data={"teacher": dataclasses.replace(job.data)})
    assert apart.stage(0).batches.padded_lengths == length_buckets(40, None)
