"""The queue of a service: what is computed together, and that a text that fails fails alone."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pytest

from crossdistil.core.app.service_batches import Batcher, QueueFull
from crossdistil.core.app.service_model import CALL, Answer, Item, cuts


class Model:
    """Answers a text with its length, two at a time; "bad" it cannot answer."""

    def __init__(self):
        self.taken: list[list[str]] = []

    def answers(self, items):
        self.taken.append([item.text for item in items])
        for start in range(0, len(items), 2):
            numbers = list(range(start, min(start + 2, len(items))))
            if any(items[number].text == "bad" for number in numbers):
                raise ValueError("cannot")
            yield numbers, [Answer({"score": float(len(items[number].text))}, 1, False) for number in numbers]


class Counted:
    """The sizes of batches."""

    def __init__(self):
        self.sizes: list[int] = []

    def batch(self, answers):
        self.sizes.append(len(answers))


def run(work, limit=20, batch=2, max_wait=0.2):
    """`work(batcher)` in a loop beside a batcher: its result, the model and the sizes."""
    model, counted = Model(), Counted()
    batcher = Batcher(limit, batch, max_wait, counted)
    batcher.start(lambda: model)

    async def main():
        batcher.serve(asyncio.get_running_loop())
        return await work(batcher)

    try:
        return asyncio.run(main()), model, counted
    finally:
        batcher.stop()
        assert not batcher.is_alive


def items(*texts):
    return [Item(text) for text in texts]


def test_a_text_that_fails_fails_alone():
    async def work(batcher):
        jobs = [batcher.submit(items(*texts)) for texts in (["a", "bb"], ["ccc", "bad"], ["dddd"], ["bad"])]
        return await asyncio.gather(*(job.answered for job in jobs), return_exceptions=True)

    found, _, _ = run(work, batch=8)
    scores = [[answer.fields["score"] for answer in each] if isinstance(each, list) else str(each) for each in found]
    assert scores == [[1.0, 2.0], "cannot", [4.0], "cannot"]


def test_what_is_given_up_is_not_computed_and_the_queue_has_an_end():
    async def work(batcher):
        first, second = batcher.submit(items("a")), batcher.submit(items("bb", "ccc"))
        with pytest.raises(QueueFull):
            batcher.submit(items("d", "e"))
        assert batcher.waiting == 3 and not batcher.is_full
        first.give_up()
        return await second.answered

    found, model, counted = run(work, limit=4, batch=4)
    assert [answer.fields["score"] for answer in found] == [2.0, 3.0]
    assert model.taken == [["bb", "ccc"]] and counted.sizes == [2]


def test_no_more_than_some_batches_are_taken_at_once_and_a_long_request_whole():
    async def work(batcher):
        jobs = [batcher.submit(items("x" * 9)), *(batcher.submit(items("a", "b", "c")) for _ in range(5))]
        return await asyncio.gather(*(job.answered for job in jobs))

    found, model, _ = run(work, batch=2)
    assert [len(each) for each in found] == [1, 3, 3, 3, 3, 3]
    assert [len(taken) for taken in model.taken] == [7, 6, 3]


def test_what_loading_raises_is_raised():
    def load():
        raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        Batcher(1, 1, 0.0, Counted()).start(load)


@pytest.mark.parametrize("seed", range(4))
def test_texts_are_cut_into_batches_that_cost_least(seed):
    """Against every way to cut them."""
    draw = np.random.default_rng(seed)
    lengths, most = sorted(draw.integers(2, 60, 9).tolist()), int(draw.integers(2, 10))

    def cost(places):
        parts = np.split(np.array(lengths), list(places))
        return sum(len(part) * part[-1] + CALL for part in parts) if max(map(len, parts)) <= most else np.inf

    ways = [places for count in range(len(lengths)) for places in itertools.combinations(range(1, len(lengths)), count)]
    assert cost(cuts(lengths, most)) == min(map(cost, ways))
