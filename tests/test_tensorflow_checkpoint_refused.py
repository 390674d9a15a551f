"""TensorFlow checkpoints are found by each of their names; paths that name none or several, and damaged files, are refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from crossdistil.converters.leveldb_table import write_table
from crossdistil.converters.tensorflow_checkpoint import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensorflow_entries import part_key, write_header
from crossdistil.core.errors import CheckpointError
from crossdistil.core.wire import delimited, number
from crossdistil.tests.checkpoint_files import tensors_of
from crossdistil.tests.tensorflow_checkpoint_files import entry_of


@pytest.fixture
def two_shards(tmp_path):
    """The folder of a checkpoint `m` with the tensors a and b, each in its shard."""
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder, tensors_of({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int64([1, 2])}), "m", 1)
    return folder


# ---------------------------------------------------------------------------------------------- which files


def test_all_that_names_a_checkpoint(two_shards):
    (two_shards / "other.index").write_bytes(b"no table")
    for name in ("", "m", "m.index", "m.data-00000-of-00002", "m.data-00001-of-00002"):
        path = two_shards / name
        assert is_checkpoint(path) and sorted(open_checkpoint(path).tensors) == ["a", "b"]
    state = two_shards / "checkpoint"
    for name in (f"{two_shards}/m", "/old machine/m", "\\155"):
        state.write_text(f'\n model_checkpoint_path: "{name}"')
        assert sorted(open_checkpoint(two_shards).tensors) == ["a", "b"]
    for name in ("n", "../n", "/x/n"):
        state.write_text(f'model_checkpoint_path: "{name}"\n')
        with pytest.raises(
            CheckpointError, match=f"checkpoint: names '{name}', whose .index is missing in the folder; .*: m.index, other"
        ):
            open_checkpoint(two_shards)
    (two_shards / "other.index").unlink()
    state.unlink()
    for text in ("", "{}", 'model_checkpoint_path: ""', 'model_checkpoint_path: "\\000"'):  # it is something else
        assert sorted(open_checkpoint(two_shards).tensors) == ["a", "b"]
        state.write_text(text)
    assert sorted(open_checkpoint(two_shards).tensors) == ["a", "b"]
    state.unlink()
    shutil.copy(two_shards / "m.index", two_shards / "n.index")
    assert is_checkpoint(two_shards)
    with pytest.raises(CheckpointError, match="model: expected one TensorFlow checkpoint, .* found m.index, n.index"):
        open_checkpoint(two_shards)


def test_what_is_no_checkpoint(two_shards, tmp_path):
    (tmp_path / "x.index").write_bytes(b"x" * 100)
    (tmp_path / "empty").mkdir()
    shutil.copy(two_shards / "m.index", tmp_path / "old.ckpt")
    for name, message in {
        "x": "x.index: is no index of a TensorFlow checkpoint, or damaged: its last 8 bytes",
        "x.index": "x.index: is no index of a TensorFlow checkpoint, or damaged: its last 8 bytes",
        "empty": "empty: expected one TensorFlow checkpoint, .*; found none",
        "gone": "gone: is no TensorFlow checkpoint: there is no file gone.index",
        "gone.data-00000-of-00001": "there is no file gone.index",
        "gone.index": "gone.index: is no TensorFlow checkpoint: there is no file gone.index",
        "old.ckpt": "old.ckpt: is a TensorFlow checkpoint of the old format V1",
        "n" * 300: "n.index: cannot be read: File name too long",
    }.items():
        assert not is_checkpoint(tmp_path / name)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path / name)
    assert not is_checkpoint(tmp_path / "a\0b")


# ---------------------------------------------------------------------------------------------- damage


def test_any_changed_bit_of_the_index_is_found(two_shards):
    index = two_shards / "m.index"
    whole = index.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        index.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"m\.index: is no index of a TensorFlow checkpoint, or damaged"):
            open_checkpoint(two_shards)
    for size in range(len(whole)):
        index.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"m\.index: is no index of a TensorFlow checkpoint, or damaged"):
            open_checkpoint(two_shards)


def test_any_changed_bit_of_the_data_is_found(two_shards):
    data = two_shards / "m.data-00000-of-00002"
    whole = data.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        data.write_bytes(changed)
        checkpoint = open_checkpoint(two_shards)
        with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00002: tensor 'a' is damaged: the checksum"):
            checkpoint.tensors["a"].load()
        assert checkpoint.tensors["b"].load().tolist() == [1, 2]


def test_missing_data_is_found_at_opening(two_shards):
    data = two_shards / "m.data-00000-of-00002"
    whole = data.read_bytes()
    checkpoint = open_checkpoint(two_shards)
    for size in range(len(whole)):
        data.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=rf"m\.data-00000-of-00002: is cut off: it has {size} bytes.*'a'"):
            open_checkpoint(two_shards)
        with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00002: tensor 'a' is cut off"):
            checkpoint.tensors["a"].load()
    data.unlink()
    with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00002: is missing; tensor 'a' of m\.index is in it"):
        open_checkpoint(two_shards)
    with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00002: tensor 'a' cannot be read: No such file"):
        checkpoint.tensors["a"].load()


WHOLE = entry_of(shape=(4,), size=0, slices=(((0, 2),), ((2, 2),)))
FIRST, SECOND = part_key("a", ((0, 2),)), part_key("a", ((2, 2),))

WRONG_ENTRIES = {
    "no header": ({b"a": entry_of()}, "m.index: is no index of a TensorFlow checkpoint: it has no header"),
    "big endian": ({b"": write_header(1) + number(2, 1)}, "its numbers are big-endian"),
    "newer": ({b"": number(1, 1) + delimited(3, number(2, 2))}, "it asks for version 2 of the format"),
    "shard": ({b"a": entry_of(shard=1)}, "tensor 'a' is in shard 1, but there are 1"),
    "offset": ({b"a": entry_of(offset=1 << 62)}, r"m.data-00000-of-00001: is cut off: it has 16 bytes, expected at least 4,6"),
    "behind": ({b"a": entry_of(offset=9)}, "is cut off: it has 16 bytes, expected at least 17 for tensor 'a'"),
    "size": ({b"a": entry_of(shape=(3,))}, r"tensor 'a' has 8 bytes, expected 12 for F32 \[3\]"),
    "huge": ({b"a": entry_of(shape=(1 << 62, 1 << 62))}, r"tensor 'a' has the impossible shape"),
    "hidden": ({b"a": entry_of(shape=(0, 1 << 62), size=0)}, r"tensor 'a' has the impossible shape \[0, 4611"),
    "negative": ({b"a": entry_of(shape=(0, -1), size=0)}, r"tensor 'a' has the impossible shape \[0, 18446"),
    "dimensions": ({b"a": entry_of(shape=(1,) * 33, size=4)}, "tensor 'a' has 33 dimensions, expected at most 32"),
    "rank": ({b"a": number(1, 1) + delimited(2, number(3, 1))}, "the entry of tensor 'a' is damaged: its shape is not known"),
    "entry": ({b"a": b"\xff"}, "m.index: the entry of tensor 'a' is damaged: "),
    "name": ({b"\xff\xfe": entry_of()}, "m.index: is damaged: the name b'.*' is not UTF-8"),
    "no part": ({b"a": WHOLE, FIRST: entry_of()}, r"tensor 'a': its part at \[2\] is missing"),
    "more parts": ({b"a": entry_of(), FIRST: entry_of()}, "m.index: is damaged: it holds parts of tensors that it does not name"),
    "type": ({b"a": WHOLE, FIRST: entry_of(), SECOND: entry_of("I32")}, r"its part at \[2\] has another type or shape"),
    "shape": ({b"a": WHOLE, FIRST: entry_of(), SECOND: entry_of(shape=(3,), size=12)}, r"its part at \[2\] has another type"),
    "gap": ({b"a": entry_of(shape=(5,), slices=(((0, 2),), ((3, 2),)))}, r"its 2 parts do not make its shape \[5\]"),
    "rows": ({b"a": entry_of(shape=(5,), slices=(((0, 5), (0, 1)),))}, r"its 1 parts do not make its shape \[5\]"),
    "cheap": (
        {b"a": entry_of(shape=(9, 2), slices=[((i, 1), (0, 2)) for i in range(9)])}
        | {part_key("a", ((i, 1), (0, 2))): entry_of(shape=(1, 2)) for i in range(9)},
        "tensor 'a' has 72 bytes, more than all shards",
    ),
}


@pytest.mark.parametrize("case", WRONG_ENTRIES)
def test_a_wrong_entry_is_named(tmp_path, case):
    entries, message = WRONG_ENTRIES[case]
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(16))
    if case != "no header":
        entries = {b"": write_header(1)} | entries
    write_table(tmp_path / "m.index", entries)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)
