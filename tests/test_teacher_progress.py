"""The record of which batches of a teacher cache are done: an interrupted writer, or several in any number, go on with exactly
the others."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from crossdistil.core import teacher_writing
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.batches import evaluation_rows
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.teacher_cache import DamagedCache
from crossdistil.core.teacher_progress import Progress
from crossdistil.core.teacher_writing import write_outputs
from crossdistil.tests.cached_teacher import (
    BATCH,
    BATCHES,
    ROWS,
    cache_at,
    content,
    copied,
    marked,
    outputs_of,
    plan_of,
    rows_of,
    whole_at,
    write,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model):
    return whole_at(tmp_path_factory.mktemp("whole") / "cache", tiny_model)


@pytest.fixture
def copy(tmp_path, whole, tiny_model):
    return copied(whole, tmp_path / "cache", tiny_model)


class Stop(Exception):
    pass


def stop_at(number, last):
    if number == last:
        raise Stop


@pytest.fixture
def half(tmp_path, tiny_model, monkeypatch):
    """A cache of which three batches are there."""
    monkeypatch.setattr(teacher_writing, "_SAVE_SECONDS", 0.0)
    cache = cache_at(tmp_path / "half", tiny_model)
    with pytest.raises(Stop):
        write(cache, tiny_model, lambda number: stop_at(number, 3))
    return cache


@pytest.mark.parametrize(
    "harm", ["none", "removed", "truncated", "longer", "no progress", "garbled progress", "flipped progress"]
)
def test_only_what_is_really_there_is_not_computed_again(half, whole, tiny_model, harm):
    path, progress = half.folder / "hidden-2.bin", half.folder / "hidden-2.progress"
    if harm == "removed":
        path.unlink()
    elif harm == "truncated":
        os.truncate(path, 100)
    elif harm == "longer":
        path.write_bytes(path.read_bytes() + b"more")
    elif harm == "no progress":
        progress.unlink()
    elif harm == "garbled progress":
        progress.write_bytes(b"three")
    elif harm == "flipped progress":
        progress.write_bytes(progress.read_bytes()[:-1] + b"\x01")
    kept = harm in ("none", "flipped progress")
    assert write(half, tiny_model) == list(range(3 if kept else 0, BATCHES))
    half.open()
    assert content(half.folder) == content(whole.folder)


@pytest.mark.parametrize("holes", [(), (0,), (1, 4), tuple(range(BATCHES))])
def test_exactly_the_batches_that_are_not_marked_are_computed(copy, whole, tiny_model, holes):
    """Whatever order they were made in, as by several processes of which some ended."""
    plan = plan_of(rows_of(tiny_model))
    for layout in copy.layouts:
        copy.path(layout, ".sums").unlink()
        progress = Progress(copy.path(layout, ".progress"), plan)
        progress.begin(keep=False)
        progress.mark([number for number in range(BATCHES) if number not in holes])
        flat = np.memmap(copy.path(layout), np.float32, "r+")
        for row in plan[list(holes)].ravel():
            flat[layout.starts[row] : layout.starts[row + 1]] = 7.0
    assert write(copy, tiny_model) == list(holes)
    assert content(copy.folder) == content(whole.folder)


def test_a_record_of_other_batches_is_none(half, whole, tiny_model):
    table, model = rows_of(tiny_model), load_model(tiny_model)
    other, seen = evaluation_rows(table, BATCH - 1), []
    compute = outputs_of(model, table, half.key.outputs)

    def outputs(rows):
        seen.extend(rows[rows >= 0].tolist())
        return compute(rows)

    write_outputs(half, other, lambda names: outputs, lambda done, total: None)
    assert sorted(seen) == list(range(ROWS))
    for layout in half.layouts:
        here, there = (np.fromfile(one.path(layout), "<f4") for one in (half, whole))
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)


def test_a_record_that_changed_meanwhile_is_no_complete_cache(half, tiny_model):
    def each(number):
        if number == 4:
            Progress(half.folder / "hidden-2.progress", plan_of(rows_of(tiny_model))).begin(keep=False)

    with pytest.raises(DamagedCache, match="hidden-2.progress: was changed while the cache was written"):
        write(half, tiny_model, each)
    assert not half.complete
    assert write(half, tiny_model) == [0, 1, 2, 3]


class Rank:
    """One of several threads that write one cache, as the processes of a run do."""

    def __init__(self, rank, barrier):
        self.rank, self.size, self._barrier = rank, barrier.parties, barrier

    def together(self, function, *arguments):
        result = function(*arguments)
        self._barrier.wait(30)
        return result


def write_together(folder, model, size, each=lambda rank, number: None):
    """The batches that each of `size` writers computed, and the errors that ended them."""
    barrier, computed, errors = threading.Barrier(size), [[] for _ in range(size)], []

    def work(rank):
        try:
            cache = cache_at(folder, model)
            computed[rank] = write(cache, model, lambda number: each(rank, number), processes=Rank(rank, barrier))
        except (Stop, threading.BrokenBarrierError) as error:
            errors.append(type(error))
            barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return computed, errors


@pytest.mark.parametrize("size", [2, 3, BATCHES + 2])
def test_several_processes_share_the_batches_out(tmp_path, whole, tiny_model, size):
    computed, errors = write_together(tmp_path / "cache", tiny_model, size)
    assert not errors and [len(each) for each in computed] == [len(range(rank, BATCHES, size)) for rank in range(size)]
    assert sorted(sum(computed, [])) == list(range(BATCHES))
    assert content(tmp_path / "cache") == content(whole.folder)
    cache_at(tmp_path / "cache", tiny_model).open()


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (3, 2), (2, 3)])
def test_another_number_of_processes_goes_on(tmp_path, whole, tiny_model, monkeypatch, before, after):
    monkeypatch.setattr(teacher_writing, "_SAVE_SECONDS", 0.0)
    folder = tmp_path / "cache"
    _, errors = write_together(folder, tiny_model, before, lambda rank, number: stop_at(number, 3))
    assert Stop in errors and not cache_at(folder, tiny_model).complete
    done = marked(folder)
    assert 3 not in done
    computed, errors = write_together(folder, tiny_model, after)
    assert not errors and sorted(sum(computed, [])) == [number for number in range(BATCHES) if number not in done]
    assert content(folder) == content(whole.folder)


def test_a_process_on_another_disk_is_told(tmp_path, tiny_model, monkeypatch):
    """It never sees what the first one makes."""
    monkeypatch.setattr(teacher_writing, "_SHOWN_SECONDS", 0.2)

    class Second:
        rank, size = 1, 2

        def together(self, function, *arguments):
            return function(*arguments)

    with pytest.raises(CrossdistilError, match="is not seen by every process; choose a teacher_cache.folder on a disk"):
        write(cache_at(tmp_path / "cache", tiny_model), tiny_model, processes=Second())
