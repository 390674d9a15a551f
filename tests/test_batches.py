"""Batches: what a row becomes, that nothing is lost or repeated, and that the order is what resuming relies on."""

from __future__ import annotations

import time

import numpy as np
import pytest

from crossdistil.core.data.batches import TrainBatches, evaluation_batches, length_buckets, real_tokens
from crossdistil.core.data.tokenize import TokenTable
from crossdistil.core.errors import DataError
from crossdistil.core.world import Share

BUCKETS = (16, 32, 48)


def make_table(count: int, longest: int = 48, seed: int = 0, pad_id: int = 0) -> tuple[TokenTable, list[list[int]]]:
    """A table and its rows as lists. Row i is [101, 1000 + i, ...], so that a batch's row tells which it is."""
    generator = np.random.default_rng(seed)
    rows = [[101, 1000 + i, *generator.integers(200, 900, generator.integers(1, longest - 1))] for i in range(count)]
    offsets = np.cumsum([0, *map(len, rows)])
    first_lengths = np.array([generator.integers(2, len(row) + 1) for row in rows], dtype=np.int32)
    return TokenTable(np.concatenate(rows).astype(np.int32), offsets, first_lengths, pad_id), rows


def real_rows(batch) -> list[int]:
    return [int(ids[1]) - 1000 for ids, real in zip(batch["input_ids"], batch["example_mask"]) if real]


def epoch_rows(batches: TrainBatches, number: int, start_step: int = 0) -> list[list[int]]:
    return [[row for micro in step for row in real_rows(micro)] for step in batches.epoch(number, start_step)]


def test_a_batch_row_by_row():
    table, rows = make_table(9, pad_id=7)
    labels = np.arange(9, dtype=np.float32) / 2
    for indices, batch in evaluation_batches(table, labels, 4, BUCKETS):
        length = batch["input_ids"].shape[1]
        longest = max(len(rows[i]) for i in indices)
        assert length == min(bucket for bucket in BUCKETS if bucket >= longest)
        for place, i in enumerate(indices):
            row, first, fill = rows[i], table.first_lengths[i], length - len(rows[i])
            assert batch["input_ids"][place].tolist() == row + [7] * fill
            assert batch["attention_mask"][place].tolist() == [1.0] * len(row) + [0.0] * fill
            assert batch["token_type_ids"][place].tolist() == [0] * first + [1] * (len(row) - first) + [0] * fill
            assert batch["labels"][place] == labels[i]
        assert batch["example_mask"].tolist() == [1.0] * len(indices) + [0.0] * (4 - len(indices))
        assert batch["label_mask"].tolist() == batch["example_mask"].tolist()
        for place in range(len(indices), 4):
            assert batch["input_ids"][place].tolist() == [101] + [7] * (length - 1)
            assert batch["attention_mask"][place].tolist() == [1.0] + [0.0] * (length - 1)
            assert not batch["token_type_ids"][place].any()
        assert {name: array.dtype.name for name, array in batch.items()} == {
            "input_ids": "int32",
            "token_type_ids": "int32",
            "attention_mask": "float32",
            "labels": "float32",
            "label_mask": "float32",
            "example_mask": "float32",
        }


def test_evaluation_covers_every_example_once_longest_first():
    table, rows = make_table(23)
    seen, lengths = [], []
    for indices, batch in evaluation_batches(table, None, 5, BUCKETS):
        assert batch["input_ids"].shape[0] == 5
        assert batch["labels"].dtype == np.int32 and not batch["labels"].any()
        assert real_rows(batch) == indices.tolist()
        seen += indices.tolist()
        lengths += [len(rows[i]) for i in indices]
    assert sorted(seen) == list(range(23))
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("count", [1, 7, 16, 17, 1000])
def test_an_epoch_has_every_example_once(count):
    table, _ = make_table(count)
    batches = TrainBatches(table, np.arange(count, dtype=np.int32), 8, 2, BUCKETS, seed=3)
    seen = []
    for step in batches.epoch(0):
        assert [micro["input_ids"].shape[0] for micro in step] == [4, 4]
        for micro in step:
            assert micro["labels"][micro["example_mask"] > 0].tolist() == real_rows(micro)
            seen += real_rows(micro)
    assert sorted(seen) == list(range(count))
    assert len(list(batches.epoch(0))) == batches.steps_per_epoch == -(-count // 8)


def test_accumulation_does_not_change_the_examples_of_a_step():
    table, _ = make_table(101)
    cuts = [epoch_rows(TrainBatches(table, None, 12, parts, BUCKETS, seed=1), 4) for parts in (1, 2, 3, 12)]
    composed = [[sorted(step) for step in steps] for steps in cuts]
    assert composed[0] == composed[1] == composed[2] == composed[3]


def test_order_depends_on_seed_and_epoch_only():
    table, _ = make_table(200)
    first, again, other = (TrainBatches(table, None, 8, 1, BUCKETS, seed) for seed in (5, 5, 6))
    assert epoch_rows(first, 0) == epoch_rows(again, 0) != epoch_rows(other, 0)
    assert epoch_rows(first, 1) == epoch_rows(again, 1) != epoch_rows(first, 0)


def test_resuming_gives_the_rest_of_the_epoch():
    table, _ = make_table(61)
    batches = TrainBatches(table, None, 8, 2, BUCKETS, seed=2)
    whole = epoch_rows(batches, 1)
    for start in (0, 3, 8):
        assert epoch_rows(batches, 1, start) == whole[start:]
    with pytest.raises(ValueError, match="start_step 9"):
        batches.epoch(1, 9)


def test_shuffled_across_the_epoch_but_of_similar_length_within_a_batch():
    table, rows = make_table(3200)
    steps = epoch_rows(TrainBatches(table, None, 16, 1, BUCKETS, seed=0), 0)
    spread = np.mean([max(len(rows[i]) for i in step) - min(len(rows[i]) for i in step) for step in steps])
    assert spread < 3  # 43 or so without sorting: lengths are uniform in 3 to 48
    means = np.array([np.mean([len(rows[i]) for i in step]) for step in steps])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.25  # no short-to-long curriculum
    assert abs(np.corrcoef(np.concatenate(steps), np.arange(3200))[0, 1]) < 0.1  # nor the file's order


def test_the_incomplete_step_is_a_random_sample():
    """Cut from the end of a sorted pool it would hold the longest examples, epoch after epoch."""
    table, rows = make_table(8 * 20 + 2)
    batches = TrainBatches(table, None, 8, 1, BUCKETS, seed=0)
    short_steps = [step for number in range(20) for step in epoch_rows(batches, number) if len(step) == 2]
    assert len(short_steps) == 20
    lengths = [len(rows[i]) for step in short_steps for i in step]
    assert abs(np.mean(lengths) - np.mean([len(row) for row in rows])) < 8


def test_real_tokens_of_an_epoch_are_the_tables():
    table, rows = make_table(13)
    batches = TrainBatches(table, None, 8, 4, BUCKETS, seed=0)
    assert sum(real_tokens(micro) for step in batches.epoch(0) for micro in step) == sum(map(len, rows))


def test_a_micro_batch_of_fill_rows_keeps_its_shape():
    table, _ = make_table(1)
    (step,) = TrainBatches(table, None, 4, 2, BUCKETS, seed=0).epoch(0)
    assert step[1]["input_ids"].shape == (2, 16)
    assert not step[1]["example_mask"].any() and real_tokens(step[1]) == 0


def without_ends(table: TokenTable, rows: list[list[int]]) -> TokenTable:
    """The same table with [CLS] and [SEP] left to the batches, and tokens that belong to no row behind each text."""
    ids = np.concatenate([[*row[1:-1], 7] for row in rows]).astype(np.uint16)
    offsets = np.cumsum([0, *(len(row) - 1 for row in rows)])
    return TokenTable(ids, offsets, np.array([len(row) for row in rows], np.int32), table.pad_id, ends=(101, 102))


@pytest.mark.parametrize("pad_id", [0, 3])
def test_ends_that_batches_put_around_texts(pad_id):
    table, rows = make_table(31, pad_id=pad_id)
    rows = [[*row[:-1], 102] for row in rows]
    table = TokenTable(np.concatenate(rows).astype(np.int32), table.offsets, table.lengths.astype(np.int32), pad_id)
    bare = without_ends(table, rows)
    np.testing.assert_array_equal(bare.lengths, table.lengths)
    labels = np.arange(31)
    found, expected = (TrainBatches(each, labels, 8, 2, BUCKETS, 3).epoch(1) for each in (bare, table))
    pairs = [pair for steps in zip(found, expected, strict=True) for pair in zip(*steps, strict=True)]
    found, expected = (evaluation_batches(each, labels, 8, BUCKETS) for each in (bare, table))
    pairs += [(batch, other) for (_, batch), (_, other) in zip(found, expected, strict=True)]
    for batch, other in pairs:
        assert list(batch) == list(other)
        for name, values in other.items():
            np.testing.assert_array_equal(batch[name], values)
            assert batch[name].dtype == values.dtype


def test_masks_see_every_batch_with_its_rows_and_epoch():
    table, _ = make_table(21)
    seen = []

    def masks(batch, rows, epoch):
        assert batch["more"].shape == batch["input_ids"].shape
        assert real_rows(batch) == rows[rows >= 0].tolist() and len(rows) == len(batch["example_mask"])
        seen.append((epoch, rows.tolist()))
        return batch | {"masked_rows": np.array([len(seen)])}

    bare = TrainBatches(table, None, 8, 2, BUCKETS, seed=3)
    batches = bare.with_arrays(lambda rows, length: {"more": np.zeros((len(rows), length))})
    assert "more" not in next(bare.epoch(0))[0]
    plain = [micro for step in batches.epoch(5, 1) for micro in step]
    batches.attach_masks(masks)
    masked = [micro for step in batches.epoch(5, 1) for micro in step]
    assert [int(batch.pop("masked_rows")[0]) for batch in masked] == [1, 2, 3, 4]
    assert {epoch for epoch, _ in seen} == {5}
    for batch, other in zip(masked, plain, strict=True):
        assert all(np.array_equal(batch[name], other[name]) for name in other) and len(batch) == len(other)
    seen.clear()

    def alike(batch, rows, epoch):
        seen.append((epoch, rows.tolist()))
        return batch

    indices = [rows.tolist() for rows, _ in evaluation_batches(table, None, 8, BUCKETS, alike)]
    assert seen == [(None, rows + [-1] * (8 - len(rows))) for rows in indices]


def test_default_buckets_end_at_the_maximum():
    assert length_buckets(128, length_step=None) == (16, 32, 48, 64, 96, 128)
    assert length_buckets(100, length_step=None) == (16, 32, 48, 64, 96, 100)
    assert length_buckets(8, length_step=None) == (8,)
    assert length_buckets(30, length_step=8) == (8, 16, 24, 30)
    assert length_buckets(5, length_step=1) == (1, 2, 3, 4, 5)
    assert length_buckets(64, length_step=8, chosen=[100, 20, 40, 20]) == (20, 40, 64)


def test_errors():
    table, _ = make_table(4)
    with pytest.raises(DataError, match="batch_size 10 cannot be cut into 4"):
        TrainBatches(table, None, 10, 4, BUCKETS, seed=0)
    with pytest.raises(DataError, match="batch_size 0"):
        TrainBatches(table, None, 0, 1, BUCKETS, seed=0)
    with pytest.raises(DataError, match="batch_size 0"):
        evaluation_batches(table, None, 0, BUCKETS)
    with pytest.raises(DataError, match=r"which no length bucket of \[2\] holds"):
        TrainBatches(table, None, 4, 1, [2], seed=0)
    empty = TokenTable(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int32))
    with pytest.raises(DataError, match="no examples"):
        TrainBatches(empty, None, 4, 1, BUCKETS, seed=0)
    with pytest.raises(ValueError, match="4 rows and 3 labels"):
        TrainBatches(table, np.zeros(3, np.int32), 4, 1, BUCKETS, seed=0)


def test_a_batch_takes_well_under_a_millisecond():
    table, _ = make_table(64 * 50, longest=64)
    batches = TrainBatches(table, None, 64, 1, (64,), seed=0)
    start = time.process_time()  # not wall time: the machine may be busy
    count = sum(len(step) for number in range(4) for step in batches.epoch(number))
    assert (time.process_time() - start) / count < 1e-3


@pytest.mark.parametrize(("accumulation", "size", "parts"), [(1, 2, 2), (3, 2, 4), (3, 4, 4), (4, 2, 4)])
def test_every_process_has_as_many_parts_and_none_stays_idle(accumulation, size, parts):
    table, _ = make_table(101)
    shares = [TrainBatches(table, None, 12, accumulation, BUCKETS, 1, share=Share(rank, size)) for rank in range(size)]
    shares = [batches.with_arrays(lambda rows, length: {"own": rows}) for batches in shares]
    alone = [sorted(step) for step in epoch_rows(TrainBatches(table, None, 12, 1, BUCKETS, seed=1), 4)]
    for step, all_parts in zip(alone, zip(*(batches.epoch(4) for batches in shares)), strict=True):
        taken = []
        for rank, made in enumerate(all_parts):
            assert len(made) == parts
            assert [number for number, part in enumerate(made) if "own" in part] == list(range(rank, parts, size))
            taken += [row for part in made[rank::size] for row in part["own"] if row >= 0]
            counts = [int(part["example_mask"].sum()) for part in made]
            assert max(counts) - min(counts) <= 1
        assert sorted(taken) == step  # each example once, by one process


def test_a_batch_has_an_example_for_each_process():
    table, _ = make_table(20)
    with pytest.raises(DataError, match="batch_size 4: has less than one example for each of 5 micro-batches"):
        TrainBatches(table, None, 4, 1, BUCKETS, 0, share=Share(0, 5))
