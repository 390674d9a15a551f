"""Several processes fill a teacher cache together, check it once and decide alike; the first one's disk is what counts."""

from __future__ import annotations

import io
import shutil
import threading

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core import teacher_writing
from crossdistil.core.app import cache_worth, teacher_caches
from crossdistil.core.app.loaded_teachers import LoadedTeachers
from crossdistil.core.app.teaching import Teaching
from crossdistil.core.errors import CrossdistilError, DamagedCache
from crossdistil.core.job import prepare
from crossdistil.core.model_answers import EVALUATION_BATCH
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.cached_teacher import ReferenceEngine
from crossdistil.tests.worlds import Threads, together

ROWS = 4 * EVALUATION_BATCH + 9


class CountingEngine(ReferenceEngine):
    """Keeps how many real rows it was given a batch of."""

    def __init__(self, stop_after: int | None = None):
        self.rows, self._stop_after = [], stop_after

    def infer(self, function, parameters):
        compute = super().infer(function, parameters)

        def run(batch):
            if len(self.rows) == self._stop_after:
                raise CrossdistilError("stopped")
            self.rows.append(int(batch["example_mask"].sum()))
            return compute(batch)

        return run


@pytest.fixture
def tree(tmp_path):
    """A recipe whose teacher has a cache of its own."""
    tiny.write_model(tmp_path / "teacher")
    found = tiny.kd_recipe(tiny.write_task(tmp_path / "task", train=ROWS), tmp_path / "teacher", steps=200)
    return found | {"teacher_cache": {"use": "always", "folder": str(tmp_path / "cache")}}


def taught(tree, size, kind=Threads, stop_after=None):
    """(first batches with what was attached or the error, what was printed, rows computed) of each of `size` processes."""

    def run(world):
        job = prepare(parse_recipe(tree, "test"), "test", 1)
        job.data.world = world
        text, engine = io.StringIO(), CountingEngine(stop_after)
        try:
            stage = Teaching(job, engine, Console(file=text, width=1000)).stage(0, False)
            found = next(iter(stage.batches.epoch(0)))[0]
        except CrossdistilError as error:
            found = error
        return found, text.getvalue(), engine.rows

    answers = together(size, run, kind)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


@pytest.mark.parametrize("place", ["given", "usual"])
def test_one_teacher_under_two_names_is_asked_once(tree, tmp_path, monkeypatch, place):
    """Beside a third, whose weights are others."""
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "usual"))
    tiny.write_model(tmp_path / "other", seed=1)
    shutil.copytree(tmp_path / "teacher", tmp_path / "copy")
    first = tree.pop("teacher")
    tree["teachers"] = {"first": first, "other": {"model": str(tmp_path / "other")}, "again": {"model": str(tmp_path / "copy")}}
    tree["student"]["init"] = {"from": first["model"], "layers": [0]}
    if place == "usual":
        del tree["teacher_cache"]["folder"]
    job, engine = prepare(parse_recipe(tree, "test"), "test", 1), CountingEngine()
    caches = teacher_caches.TeacherCaches(job, engine, Console(file=io.StringIO()), LoadedTeachers(job, engine))
    first, other, again = (caches.cache(name, ("logits",)) for name in ("first", "other", "again"))
    monkeypatch.setattr(cache_worth, "LARGEST", first.size)
    assert cache_worth.room_for([first, again])[0] and not cache_worth.room_for([first, other])[0]
    [(attached, printed, rows)] = taught(tree, 1)
    assert sum(rows) == 2 * ROWS and "again: logits from " in printed
    assert (attached["again/logits"] == attached["first/logits"]).all()
    assert (attached["again/logits"] != attached["other/logits"]).any()
    if place == "given":
        assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["first", "other"]
        assert sum(taught(tree, 1)[0][2]) == 0


def test_each_row_is_computed_once_and_read_once(tree, tmp_path, monkeypatch):
    checked = []
    write_sums = teacher_writing.write_sums
    monkeypatch.setattr(teacher_writing, "write_sums", lambda *paths: checked.append(paths) or write_sums(*paths))
    answers = taught(tree, 3)
    assert sorted(len(rows) for _, _, rows in answers) == [1, 2, 2]
    assert sum(sum(rows) for _, _, rows in answers) == ROWS
    assert len(checked) == 1  # for its checksums
    [alone] = taught(tree | {"teacher_cache": {"use": "always", "folder": str(tmp_path / "alone")}}, 1)
    for found, _, _ in answers:
        np.testing.assert_array_equal(found["teacher/logits"], alone[0]["teacher/logits"])
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.bin")} for name in ("cache", "alone")]
    assert files[0] == files[1] and files[0]
    # It is there now, for any number.
    checked.clear()
    assert [rows for _, _, rows in taught(tree, 2)] == [[], []] and not checked


@pytest.mark.parametrize("then", [1, 2, 4])
def test_an_interrupted_fill_goes_on_with_another_number_of_processes(tree, tmp_path, monkeypatch, then):
    monkeypatch.setattr(teacher_writing, "_SAVE_SECONDS", 0.0)
    first = taught(tree, 3, stop_after=1)
    assert all(str(error).endswith("stopped") for error, _, _ in first)
    done = sum(len(rows) for _, _, rows in first)
    assert done == 3 and not list((tmp_path / "cache").rglob("*.sums"))
    assert sum(len(rows) for _, _, rows in taught(tree, then)) == 5 - done


class Elsewhere(Threads):
    """The last process does not see the first one's disk."""

    def first(self, data):
        found = super().first(data)
        if self.rank == self.size - 1 and found.startswith(b"/") and b"cache" in found:
            return found + b"-on-another-disk"
        return found


def test_a_cache_that_another_machine_does_not_see(tree, monkeypatch):
    monkeypatch.setattr(teacher_caches, "_SEEN_SECONDS", 0.1)
    for done in (False, True):
        for error, _, rows in taught(tree, 3, Elsewhere):
            assert "is not seen by rank 2; choose a teacher_cache.folder on a disk that all machines share" in str(error)
            assert str(error).startswith("teacher_cache.use: 'always', but ") and not rows
        if not done:
            taught(tree, 1)
    tree["teacher_cache"]["use"] = "auto"
    for found, printed, rows in taught(tree, 3, Elsewhere):
        assert "teacher/logits" not in found and not rows
        assert "is not seen by rank 2" in printed and "the teachers run in every step" in printed


def test_the_first_ones_disk_decides(tree, monkeypatch):
    """Each process has another idea of the room that there is."""
    tree["teacher_cache"]["use"] = "auto"
    rooms = {}
    ranks = threading.local()

    class Room(Threads):
        def exchange(self, data):
            ranks.own = self.rank
            return super().exchange(data)

    monkeypatch.setattr(cache_worth.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, rooms[ranks.own]))
    for room in (0, 1 << 40):
        rooms |= {0: room, 1: (1 << 40) - room}
        for found, _, rows in taught(tree, 2, Room):
            assert ("teacher/logits" in found) == bool(rows) == bool(room)


def test_a_damaged_cache_is_told_or_made_again_by_all(tree, tmp_path, monkeypatch):
    taught(tree, 1)
    [path] = (tmp_path / "cache").rglob("*.bin")
    path.write_bytes(bytes(path.stat().st_size))
    for error, _, _ in taught(tree, 2):
        assert isinstance(error, DamagedCache) and f"{path}: block 1 of 1 " in str(error)
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "own"))
    del tree["teacher_cache"]["folder"]
    taught(tree, 1)
    [path] = (tmp_path / "own" / "teacher").rglob("*.bin")
    path.write_bytes(b"short")
    answers = taught(tree, 2)
    assert sum(sum(rows) for _, _, rows in answers) == ROWS
    assert all("is damaged, and is made again" in printed for _, printed, _ in answers)


def test_a_disk_that_cannot_be_written(tree, monkeypatch):
    tree["teacher_cache"]["folder"] = "/proc/cache"
    errors = {str(error) for error, _, _ in taught(tree, 2)}
    assert len(errors) == 1 and "teacher_cache.use: 'always', but" in errors.pop()
    tree["teacher_cache"]["use"] = "auto"
    monkeypatch.setattr(Teaching, "_pays", lambda *_: True)
    for found, printed, _ in taught(tree, 2):
        assert "teacher/logits" not in found and "the teachers run in every step" in printed
