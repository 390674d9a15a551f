"""Teacher outputs on disk: what is read is what was computed, whatever happens while it is written or to the files."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from crossdistil.core import block_sums, teacher_writing
from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CrossdistilError, DamagedCache
from crossdistil.core.models.outputs import split_name
from crossdistil.core.teacher_cache import TeacherCache
from crossdistil.core.teacher_memory import TeacherMemory
from crossdistil.core.teacher_writing import write_outputs
from crossdistil.tests import tiny
from crossdistil.tests.cached_teacher import (
    BATCH,
    BATCHES,
    LENGTH,
    NAMES,
    ROWS,
    cache_at,
    content,
    copied,
    key_of,
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


def start(folder, model, kill_at=-1, **options):
    program = [sys.executable, "-m", "crossdistil.tests.cached_teacher", folder, model, kill_at]
    return subprocess.Popen([*map(str, program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def computed(engine, tiny_model):
    """(rows, outputs) of each batch by the backend under test."""
    table = rows_of(tiny_model)
    compute = outputs_of(load_model(tiny_model), table, NAMES, engine)
    return [(rows[rows >= 0], compute(rows)) for rows in plan_of(table)]


def replayed(computed):
    """`f(rows)` of what was computed."""
    by_first = {rows[0]: values for rows, values in computed}
    return lambda rows: by_first[rows[0]]


def places(name, lengths, length):
    """Which numbers of an output padded to `length` belong to tokens, in a shape that spreads over it."""
    is_token = np.arange(length) < np.asarray(lengths)[:, None]  # (B, L)
    kind, _ = split_name(name)
    if kind in ("first", "logits", "pooled"):
        return np.ones((len(lengths), 1), bool)
    if kind == "hidden":
        return is_token[:, :, None]
    return is_token[:, None, :, None] & (is_token[:, None, None, :] if kind == "scores" else True)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_is_read_is_what_the_teacher_computed(computed, tmp_path, tiny_model, precision):
    model, table = load_model(tiny_model), rows_of(tiny_model)
    cache = TeacherCache(tmp_path / "cache", key_of(model, table, NAMES, precision), model, table.lengths)
    write_outputs(cache, plan_of(rows_of(tiny_model)), lambda names: replayed(computed), lambda done, total: None)
    cache.open()
    by_row = {row: [values[place] for values in made] for rows, made in computed for place, row in enumerate(rows)}
    asked = []

    def compute(rows):
        asked.extend(rows.tolist())
        return [np.stack(values) for values in zip(*(by_row[row] for row in rows))]

    memory = TeacherMemory(NAMES, model, table.lengths, compute)
    stored = {"fp32": np.float32, "fp16": np.float16}[precision]
    seen = 0
    for rows, made in computed:
        filled = np.append(rows[::-1], -1)  # in any order, with a row that only fills
        read, kept = cache.batch(filled, LENGTH + 3), memory.batch(filled, LENGTH + 3)
        lengths = np.append(table.lengths[rows[::-1]], 0)
        for name, values in zip(NAMES, made, strict=True):
            values = values[: len(rows)][::-1]
            real = places(name, table.lengths[rows[::-1]], LENGTH)
            expected = np.zeros(read[name].shape, np.float32)
            inside = (slice(0, len(rows)), *(slice(0, size) for size in values.shape[1:]))
            expected[inside] = np.where(real, values.astype(stored), 0)
            assert read[name].dtype == kept[name].dtype == np.float32
            np.testing.assert_array_equal(read[name], expected, err_msg=name)
            expected[inside] = np.where(real, values, 0)
            np.testing.assert_array_equal(kept[name], expected, err_msg=name)
            if precision == "fp16":
                np.testing.assert_allclose(read[name], expected, rtol=2**-11, atol=2**-25)
            seen += int(expected.any())
        assert lengths[-1] == 0 and not any(array[-1].any() for array in read.values())
    assert seen == BATCHES * len(NAMES)


def test_the_reference_and_every_backend_write_the_same(computed, tmp_path, whole, tiny_model):
    cache = cache_at(tmp_path / "cache", tiny_model)
    write_outputs(cache, plan_of(rows_of(tiny_model)), lambda names: replayed(computed), lambda done, total: None)
    for layout in cache.layouts:
        here, there = (np.fromfile(one.path(layout), "<f4") for one in (cache, whole))
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=2e-5, err_msg=layout.name)
    assert (cache.folder / "identity.json").read_bytes() == (whole.folder / "identity.json").read_bytes()


def test_the_sizes_are_told_before_and_there_is_no_padding(whole, tiny_model):
    lengths, config = rows_of(tiny_model).lengths.astype(int), tiny.CONFIG
    per_token = 5 * config.hidden_size * lengths.sum()  # two hidden states, queries, keys and values
    scores = 2 * config.num_attention_heads * (lengths**2).sum()
    expected = 4 * (per_token + scores + ROWS * (2 + 2 * config.hidden_size))
    assert whole.size == expected == sum(path.stat().st_size for path in whole.folder.glob("*.bin"))
    assert not whole.missing
    assert {path.name for path in whole.folder.glob("*")} - {".lock"} == {
        "identity.json", *(name.replace("/", "-") + ending for name in NAMES for ending in (".bin", ".sums"))
    }  # fmt: skip


def test_a_killed_writer_goes_on_where_it_stopped(tmp_path, whole, tiny_model):
    folder = tmp_path / "cache"
    cache = cache_at(folder, tiny_model)
    positions = []
    for kill_at in (0, 4):
        process = start(folder, tiny_model, kill_at)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        assert not cache.complete
        assert sum(cache.missing.values()) < whole.size / 10  # the room is taken before anything is computed
        with pytest.raises(CrossdistilError, match=r"first-1.sums: missing"):
            cache.open()
        positions.append(marked(folder))
    assert positions == [[], [0, 1, 2, 3]]
    assert write(cache, tiny_model) == [4, 5]
    assert content(folder) == content(whole.folder)
    cache.open()


def test_two_processes_write_one_cache(tmp_path, whole, tiny_model):
    folder = tmp_path / "cache"
    processes = [start(folder, tiny_model) for _ in range(2)]
    ends = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    # One did all the work, the other waited for it and computed nothing.
    assert sorted(output.split() for output, _ in ends) == [[], [str(number) for number in range(BATCHES)]]
    assert content(folder) == content(whole.folder)


def test_a_full_disk_is_one_clear_error(tmp_path, whole, tiny_model):
    folder = tmp_path / "cache"
    # No file may be longer than this: the small ones fit, some outputs do not.
    limit = max(path.stat().st_size for path in whole.folder.glob("*.bin")) - 1
    process = start(folder, tiny_model, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    output, errors = process.communicate()
    assert (process.returncode, output) == (1, "")
    assert errors == f"error: {folder}: cannot be written: File too large\n"
    cache = cache_at(folder, tiny_model)
    assert not cache.complete and not list(folder.glob("*.bin")) and sum(cache.missing.values()) == cache.size
    assert write(cache, tiny_model) == list(range(BATCHES))
    cache.open()


def flip(path, place=0.5, bit=0x10):
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= bit
    path.write_bytes(bytes(data))


DAMAGE = {
    "truncated": (lambda folder: os.truncate(folder / "scores-1.bin", 4000), r"scores-1.bin: has 4,000 bytes, expected"),
    "longer": (lambda folder: (folder / "logits.bin").open("ab").write(b"0000"), "logits.bin: has 356 bytes, expected 352"),
    "missing": (lambda folder: (folder / "pooled.bin").unlink(), "pooled.bin: missing"),
    "no sums": (lambda folder: (folder / "pooled.sums").unlink(), "pooled.sums: missing"),
    "garbled sums": (lambda folder: flip(folder / "hidden-2.sums"), "hidden-2.sums: damaged"),
    "short sums": (lambda folder: (folder / "hidden-2.sums").write_bytes(b"sums"), "hidden-2.sums: damaged"),
    "empty sums": (lambda folder: (folder / "hidden-2.sums").write_bytes(b""), "hidden-2.sums: damaged"),
    "no identity": (lambda folder: (folder / "identity.json").unlink(), "identity.json: missing"),
    "garbled identity": (
        lambda folder: (folder / "identity.json").write_bytes(b"\xff{"),
        "identity.json: line 1: is no JSON, or damaged",
    ),
    "other identity": (lambda folder: (folder / "identity.json").write_text("[]"), "identity.json: expected a JSON object"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_cache_is_refused(copy, name):
    damage, message = DAMAGE[name]
    copy.open()
    damage(copy.folder)
    with pytest.raises(CrossdistilError, match=message) as caught:
        copy.open()
    assert "\n" not in str(caught.value) and str(copy.folder) in str(caught.value)
    assert "delete" in str(caught.value)


FLIPPED = {"middle": ("hidden-0", 0.5, 0x10), "first": ("keys-1", 0.0, 0x01), "last": ("values-2", 1.0, 0x80)}


@pytest.mark.parametrize("place", FLIPPED)
def test_a_damaged_block_is_refused_when_it_is_used_and_not_before(copy, whole, tiny_model, monkeypatch, place):
    whole.open()
    right = whole.batch(np.arange(ROWS), LENGTH)
    monkeypatch.setattr(block_sums, "BLOCK", 256)
    for layout in copy.layouts:
        block_sums.write_sums(copy.path(layout), copy.path(layout, ".sums"))
    name, at, bit = FLIPPED[place]
    path = copy.folder / f"{name}.bin"
    flip(path, at, bit)
    copy.open()
    size, [layout] = path.stat().st_size, [layout for layout in copy.layouts if copy.path(layout) == path]
    byte, blocks = int(at * (size - 1)), -(-size // 256)
    ends = layout.starts[1:] * 4
    row = int(np.searchsorted(ends, byte, side="right"))
    hurt = [
        each for each in range(ROWS) if layout.starts[each] * 4 // 256 <= byte // 256 <= (layout.starts[each + 1] * 4 - 1) // 256
    ]
    assert row in hurt and len(hurt) < ROWS / 2
    others = np.array([each for each in range(ROWS) if each not in hurt])
    for rows in (others, others[::-1]):
        np.testing.assert_equal(copy.batch(rows, LENGTH), {each: array[rows] for each, array in right.items()})
    first, last = byte // 256 * 256, min(byte // 256 * 256 + 256, size) - 1
    told = f"{path}: block {byte // 256 + 1:,} of {blocks:,} (bytes {first:,} to {last:,}) is damaged"
    for each in hurt:
        with pytest.raises(DamagedCache) as caught:
            copy.batch(np.array([-1, each]), LENGTH)
        assert str(caught.value) == f"{told}; delete {path} to make it again"
    path.unlink()  # as it says
    assert write(copy, tiny_model) == list(range(BATCHES))
    copy.open()
    np.testing.assert_equal(copy.batch(np.arange(ROWS), LENGTH), right)


def test_other_outputs_are_added_and_those_that_are_there_stay(tmp_path, whole, tiny_model):
    first, more = ("hidden/2", "logits", "scores/1"), ("hidden/0", "hidden/2", "scores/1", "values/2")
    write(cache_at(tmp_path / "cache", tiny_model, first), tiny_model)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir() if path.suffix in (".bin", ".sums")}
    cache, asked = cache_at(tmp_path / "cache", tiny_model, more), []
    model, table = load_model(tiny_model), rows_of(tiny_model)
    assert [layout.name for layout in cache.absent] == ["hidden/0", "values/2"] and not cache.complete
    assert sum(cache.missing.values()) == cache.bytes_of(cache.absent) < cache.size
    write_outputs(
        cache, plan_of(table), lambda names: asked.append(names) or outputs_of(model, table, names), lambda done, total: None
    )
    assert asked == [("hidden/0", "values/2")] and cache.complete and not cache.missing
    for name, when in before.items():
        assert (tmp_path / "cache" / name).stat().st_mtime_ns == when, name
    for names in (first, more):
        found = cache_at(tmp_path / "cache", tiny_model, names)
        found.open()
        whole.open()
        expected = whole.batch(np.arange(ROWS), LENGTH)
        np.testing.assert_equal(found.batch(np.arange(ROWS), LENGTH), {name: expected[name] for name in names})
    assert write(cache, tiny_model) == []


def test_two_processes_that_want_other_outputs_at_once_both_get_theirs(tmp_path, whole, tiny_model):
    wanted = [NAMES[:6], NAMES[3:]]
    caches = [cache_at(tmp_path / "cache", tiny_model, names) for names in wanted]
    threads = [threading.Thread(target=write, args=(cache, tiny_model, lambda number: time.sleep(0.01))) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(tmp_path / "cache") == content(whole.folder)


def test_a_killed_writer_of_other_outputs_leaves_what_was_there(tmp_path, whole, tiny_model, monkeypatch):
    monkeypatch.setattr(teacher_writing, "_SAVE_SECONDS", 0.0)
    folder = tmp_path / "cache"
    assert write(cache_at(folder, tiny_model, NAMES[:4]), tiny_model) == list(range(BATCHES))
    process = start(folder, tiny_model, 3)  # of all outputs
    assert process.communicate() and process.returncode == -signal.SIGKILL
    assert cache_at(folder, tiny_model, NAMES[:4]).complete
    cache_at(folder, tiny_model, NAMES[:4]).open()
    assert write(cache_at(folder, tiny_model), tiny_model) == [3, 4, 5]
    assert content(folder) == content(whole.folder)


def test_a_discarded_cache_is_made_again_and_readers_keep_theirs(copy, whole, tiny_model):
    copy.open()
    before = copy.batch(np.array([3]), LENGTH)
    flip(copy.folder / "hidden-2.sums")
    copy.discard()
    assert content(whole.folder).keys() - content(copy.folder).keys() == {"hidden-2.bin", "hidden-2.sums"}
    (copy.folder / "identity.json").unlink()
    copy.discard()
    assert not content(copy.folder)
    np.testing.assert_equal(copy.batch(np.array([3]), LENGTH), before)
    write(copy, tiny_model)
    assert content(copy.folder) == content(whole.folder)


def test_a_cache_of_something_else_is_refused(copy, whole, tmp_path, tiny_model):
    tiny.write_model(tmp_path / "other", seed=5)
    model, table = load_model(tiny_model), rows_of(tiny_model)
    others = {
        "another teacher": key_of(load_model(tmp_path / "other"), table),
        "other data or another tokenizer": key_of(model, dataclasses.replace(table, ids=table.ids[:-1])),
        "precision 'fp32' instead of 'fp16'": key_of(model, table, precision="fp16"),
        "computed_in 'fp32' instead of 'bf16'": dataclasses.replace(whole.key, computed_in="bf16"),
    }
    assert len({key.digest for key in [whole.key, *others.values()]}) == 5
    for what, key in others.items():
        other = TeacherCache(copy.folder, key, model, table.lengths)
        for use in (other.check_identity, other.open, lambda other=other: write_outputs(other, plan_of(table), None, None)):
            with pytest.raises(CrossdistilError, match=f"^{copy.folder}: is a teacher cache of {what}; choose another"):
                use()


def test_rows_that_differ_in_anything_are_other_rows(tiny_model):
    table = rows_of(tiny_model)
    moved, shorter = table.offsets.copy(), table.first_lengths.copy()
    moved[1] -= 1
    shorter[0] -= 1
    changes = [{}, {"ids": table.ids + 1}, {"offsets": moved}, {"first_lengths": shorter}, {"pad_id": 1}, {"apart": True}]
    assert len({dataclasses.replace(table, **change).digest for change in changes}) == len(changes)


def test_numbers_that_fp16_cannot_hold_are_refused(tmp_path, tiny_model):
    model, table = load_model(tiny_model), rows_of(tiny_model)
    cache = cache_at(tmp_path / "cache", tiny_model, ("hidden/1",), "fp16")
    huge = [np.full((BATCH, LENGTH, model.config.hidden_size), 7e4, np.float32)]
    with pytest.raises(CrossdistilError, match=r"precision: fp16 cannot hold hidden/1, up to 7e\+04; use fp32"):
        write_outputs(cache, plan_of(table), lambda names: lambda rows: huge, lambda done, total: None)
    assert not cache.complete
