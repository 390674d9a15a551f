"""The format of TensorFlow checkpoints, without TensorFlow: what is written comes back, and each part of it is read."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from crossdistil.converters.leveldb_table import BLOCK_SIZE, is_table, read_table, write_table
from crossdistil.converters.tensorflow_checkpoint import open_checkpoint, write
from crossdistil.converters.tensorflow_entries import is_grid, part_key, write_header
from crossdistil.converters.tensorflow_objects import object_names
from crossdistil.converters.tensors import Tensor, TensorInfo
from crossdistil.core.errors import CheckpointError
from crossdistil.core.wire import delimited, mask_crc, masked_crc, number
from crossdistil.tests.checkpoint_files import tensors_of
from crossdistil.tests.tensorflow_checkpoint_files import assert_same, entry_of, every_kind


def test_what_is_written_comes_back(tmp_path):
    arrays = every_kind()
    for number_, shard_size in enumerate((None, 1, 500)):
        folder = tmp_path / str(number_)
        folder.mkdir()
        write(folder, tensors_of(arrays), shard_size=shard_size)
        assert_same(open_checkpoint(folder), arrays)
    assert len(list((tmp_path / "2").glob("*.data-*"))) == 3
    write(folder, [], "none")
    assert open_checkpoint(folder).tensors == {}


def test_large_tensors_are_read_in_pieces(tmp_path):
    array = np.random.default_rng(0).normal(size=(1000, 777)).astype(np.float32)
    write(tmp_path, tensors_of({"a": np.int8([1]), "b": array}))
    assert_same(open_checkpoint(tmp_path), {"a": np.int8([1]), "b": array})


def test_no_more_than_one_tensor_is_held(tmp_path):
    def measured(action):
        tracemalloc.start()
        action()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    info = TensorInfo("", (3, 1 << 20), "F32")
    tensors = [Tensor(replace(info, name=name), lambda: np.ones(info.shape, np.float32)) for name in "abc"]
    assert info.size < measured(lambda: write(tmp_path, tensors)) < 1.5 * info.size
    checkpoint = open_checkpoint(tmp_path)
    assert info.size < measured(lambda: [tensor.load().shape for tensor in checkpoint.tensors.values()]) < 1.5 * info.size


def test_writing_checks_what_it_is_given(tmp_path):
    info = TensorInfo("a", (2,), "F32")
    for wrong in (np.zeros(3, np.float32), np.zeros(2), np.zeros((1, 2), np.float32), np.zeros(2, ">f4")):
        with pytest.raises(CheckpointError, match=r"tensor 'a' is .*, expected F32 \[2\]"):
            write(tmp_path, [Tensor(info, lambda wrong=wrong: wrong)])
    for names in ([""], ["\0a"], ["a", "a"]):
        with pytest.raises(CheckpointError, match="cannot hold a tensor"):
            write(tmp_path, [Tensor(TensorInfo(name, (), "F32"), lambda: np.zeros((), np.float32)) for name in names])


def test_tables_of_many_sizes(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "table"
    for count in (0, 1, 2, 15, 16, 17, 33, 400):
        lengths = generator.integers(0, 9, count)
        keys = {generator.integers(0, 256, length, np.uint8).tobytes() + b"\xff" * (count % 3) for length in lengths}
        entries = {key: key[::-1] * 3 for key in sorted(keys)}
        for block_size in (1, 100, BLOCK_SIZE):
            write_table(path, entries, block_size)
            assert list(read_table(path).items()) == list(entries.items()) and is_table(path)


def test_numbers_in_the_keys_of_parts():
    # As ordered_code_test.cc has them: the shortest and the longest of each length.
    assert part_key("", ()) == b"\0\0\1\0"
    assert part_key("a\0b", ((0, None), (63, -64), (64, -65))) == b"\0a\0\xffb\0\1\1\3" + bytes.fromhex("807fbf40c0403fbf")
    assert part_key("", ((8191, 8192),)) == b"\0\0\1\1\1" + bytes.fromhex("dfffe02000")
    assert part_key("", ((2**63 - 1, -(2**63)),)) == b"\0\0\1\1\1" + bytes.fromhex("ffc07fffffffffffffff003f8000000000000000")


def test_grids():
    assert is_grid([()], ()) and not is_grid([(), ()], ())
    assert is_grid([((0, 2),), ((2, 3),)], (5,)) and is_grid([((2, 3),), ((0, 2),)], (5,))
    assert not is_grid([((0, 3),), ((2, 2),)], (5,))
    for wrong in ([((0, 2),), ((3, 2),)], [((0, 3),), ((2, 3),)], [((0, 2),)], [((0, 5),), ((0, 5),)], [((0, 6),), ((6, -1),)]):
        assert not is_grid(wrong, (5,))
    rows = [((0, 1), (0, 4)), ((1, 2), (0, 1)), ((1, 2), (1, 3))]
    assert is_grid(rows, (3, 4)) and not is_grid(rows[:2], (3, 4))


def test_names_of_objects():
    def node(key, name, *slots):
        attribute = delimited(1, b"VARIABLE_VALUE") + delimited(2, name.encode()) + delimited(3, key.encode())
        return delimited(1, delimited(2, attribute) + b"".join(delimited(3, number(3, slot)) for slot in slots))

    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = {f"a{end}": "x", f"b{end}": "c", f"c{end}": "y", f"d{end}": "", f"e{end}": "e", f"f{end}": "twin", f"g{end}": "twin"}
    graph = b"".join(node(*item) for item in names.items()) + node(f"s{end}", "x/Adam", len(names)) + node("gone", "y")
    found = object_names(graph, [*names, f"s{end}", "d", "unknown"])
    assert found == dict(zip([*names, f"s{end}", "d", "unknown"], ["x", "b", "y", f"d{end}", "e", "f", "g", "s", "d", "unknown"]))


def test_parts_and_other_types(tmp_path):
    """Parts without length are everything; what is no tensor of numbers is named and left out, with its parts."""
    data = np.arange(4, dtype=np.float32).tobytes()
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    everything = number(1, 1) + delimited(2, delimited(2, number(1, 4))) + delimited(7, delimited(1, b""))
    complex_part = part_key("c", ((0, 1),))
    entries = {
        b"": write_header(1),
        b"a": everything,
        part_key("a", ((0, None),)): entry_of(shape=(4,), size=16, crc=masked_crc(data)),
        b"b": number(1, 7) + number(5, 4),
        b"c": number(1, 8) + delimited(2, delimited(2, number(1, 1))) + delimited(7, delimited(1, number(2, 1))),
        complex_part: number(1, 8),
        b"d": number(1, 99),
    }
    write_table(tmp_path / "m.index", entries)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors["a"].load().tolist() == [0, 1, 2, 3] and list(checkpoint.tensors) == ["a"]
    assert {name: reason.split(" is ")[0] for name, reason in checkpoint.skipped.items()} == {
        "b": "DT_STRING",
        "c": "DT_COMPLEX64",
        "d": "TensorFlow's type 99",
    }
    assert mask_crc(0) == 0xA282EAD8  # an empty tensor's
