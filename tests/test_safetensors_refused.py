"""safetensors files that are damaged, contradict themselves or cannot be written are refused with the file and the tensor."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from crossdistil.converters.safetensors_files import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensors import Tensor, TensorInfo
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.checkpoint_files import FUZZED_FILES, mutated, tensors_of


def arrays_of(path):
    return {name: tensor.load() for name, tensor in open_checkpoint(path).tensors.items()}


def header_of(**entries):
    """A file of 8 bytes of data with this header."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **others):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)} | others


CONTRADICTIONS = {
    "short file": (b"abc", "is no safetensors file: it has 3 bytes"),
    "long header": (struct.pack("<Q", 2**62) + b"{}", "its header would have 4,611,686,018,427,387,904 bytes, the file has 10"),
    "no JSON": (struct.pack("<Q", 2) + b"{:", "the header: is no JSON"),
    "no UTF-8": (struct.pack("<Q", 2) + b"{\xff", "the header: line 1: is no JSON"),
    "nested": (struct.pack("<Q", 100_000) + b"[" * 100_000, "the header: is no JSON"),
    "list": (struct.pack("<Q", 2) + b"[]", "the header is no object"),
    "long number": (struct.pack("<Q", 6000) + b'{"a":' + b"1" * 5994 + b"}", "the header: has an integer of 5,994 digits"),
    "metadata": (header_of(__metadata__={"a": 1}, a=entry()), "__metadata__ that is no object of texts"),
    "no entry": (header_of(a=3), "a is not described by dtype"),
    "more keys": (header_of(a=entry(other=1)), "a is not described by dtype"),
    "type": (header_of(**{"a.b": entry(dtype="F8_E5M2")}), r"a\.b is of type F8_E5M2, expected one of F64"),
    "no type": (header_of(a=entry(dtype=["F32"])), "a is of type"),
    "shape": (header_of(a=entry(shape=[2, -1])), "a has no shape"),
    "truth": (header_of(a=entry(shape=[True, 2])), "a has no shape"),
    "float": (header_of(a=entry(shape=[2.0])), "a has no shape"),
    "dimensions": (header_of(a=entry(shape=[1] * 33)), "a has no shape"),
    "huge": (header_of(a=entry(shape=[10**15])), "a has no shape"),
    "hidden": (header_of(a=entry(shape=[0, 2**40, 2**40], offsets=(0, 0))), "a has a shape of too many elements"),
    "bytes": (header_of(a=entry(shape=[3])), r"a has 8 bytes by its offsets, and 12 by its shape \[3\] of F32"),
    "offsets": (header_of(a=entry(offsets=[0])), "a has data_offsets that are not two numbers"),
    "negative": (header_of(a=entry(offsets=[-8, 0])), "a has data_offsets that are not two numbers"),
    "order": (header_of(a=entry(offsets=[8, 0])), "a has -8 bytes by its offsets"),
    "cut off": (header_of(a=entry(shape=[3], offsets=(0, 12))), "a is cut off: it ends at byte 12 of the data, which has 8"),
    "gap": (header_of(a=entry(shape=[1], offsets=(4, 8))), "a begins at byte 4 of the data, expected 0"),
    "overlap": (header_of(a=entry(), b=entry(shape=[1], offsets=(4, 8))), "b begins at byte 4 of the data, expected 8"),
    "more data": (header_of(a=entry(shape=[1], offsets=(0, 4))), "the tensors end at byte 4 of the data, which has 8"),
    "no name": (header_of(**{"": entry()}), "is no name of a tensor"),
    "escape": (header_of(**{"a\x1b[31m": entry()}), r"a\\x1b\[31m is no name of a tensor"),
    "half a letter": (header_of(**{"a\ud800": entry()}), "is no name of a tensor"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_header_that_contradicts(tmp_path, case):
    data, message = CONTRADICTIONS[case]
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors: .*{message}"):
        open_checkpoint(tmp_path / "a.safetensors")


def test_a_name_that_is_there_twice(tmp_path):
    text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: the header: 'a' is there twice"):
        open_checkpoint(tmp_path / "a.safetensors")


def test_truth_values_that_are_none(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(header_of(a=entry("BOOL", [8]))[:-1] + b"\x02")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: a is damaged: it is of truth values"):
        open_checkpoint(tmp_path / "a.safetensors").tensors["a"].load()


def test_a_file_that_was_cut_after_it_was_opened(tmp_path):
    write(tmp_path, tensors_of({"a": np.ones(2), "b": np.ones(2)}))
    opened, path = open_checkpoint(tmp_path), tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: b is cut off"):
        opened.tensors["b"].load()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read: No such file"):
        opened.tensors["a"].load()


def without(places, name):
    del places[name]


INDEXES = {
    "missing file": (lambda folder, places: (folder / places["c"]).unlink(), r"00002-of-00002.*: is missing; .* expects c in it"),
    "missing name": (lambda folder, places: without(places, "b"), r"00001-of-00002.*: has b, which .* does not expect in it"),
    "missing part": (lambda folder, places: without(places, "c"), r"json: has no tensor in model-00002-of-00002.*, one of 2"),
    "more names": (lambda folder, places: places.update(d=places["a"]), r"00001-of-00002.*: has no d, which .* expects in it"),
    "other file": (lambda folder, places: places.update(a=places["c"]), r"00002-of-00002.*: has no a, which .* expects in it"),
    "outside": (lambda folder, places: places.update(a="../a"), "a has no name of a file beside the index"),
    "absolute": (lambda folder, places: places.update(a="/etc/passwd"), "a has no name of a file beside the index"),
    "parent": (lambda folder, places: places.update(a=".."), "a has no name of a file beside the index"),
    "number": (lambda folder, places: places.update(a=1), "a has no name of a file beside the index"),
    "nothing": (lambda folder, places: places.clear(), "has no weight_map"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_an_index_that_is_wrong(tmp_path, case):
    change, message = INDEXES[case]
    write(tmp_path, tensors_of({name: np.ones(2) for name in "abc"}), shard_size=32)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(tmp_path, content["weight_map"])
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_files_that_are_none(tmp_path):
    for data in (b"", b"{}", b"\x00" * 20, b"PK\x03\x04" + b"\x00" * 40, struct.pack("<Q", 100) + b"{}"):
        (tmp_path / "a").write_bytes(data)
        assert not is_checkpoint(tmp_path / "a")
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path / "a")
    assert not is_checkpoint(tmp_path) and not is_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="has neither model.safetensors nor"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="none: cannot be read: No such file"):
        open_checkpoint(tmp_path / "none")


def test_a_writer_checks_what_it_is_given(tmp_path):
    wrong = Tensor(TensorInfo("a", (2,), "F32"), lambda: np.ones(2))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: a was loaded as float64 \[2\], expected F32 \[2\]"):
        write(tmp_path, [wrong])
    for names in (["a", "a"], [""], ["a\n"], ["\ud800"], ["__metadata__"]):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot hold a tensor named"):
            write(tmp_path, [Tensor(TensorInfo(name, (2,), "F32"), lambda: np.ones(2, np.float32)) for name in names])


def test_ten_thousand_damaged_files(tmp_path):
    generator = np.random.default_rng(0)
    write(tmp_path, tensors_of({"a": np.ones((2, 3)), "b": np.ones(4, bool), "c": np.ones((), np.int8)}))
    whole = (tmp_path / "model.safetensors").read_bytes()
    path, read = tmp_path / "a.safetensors", 0
    for _ in range(FUZZED_FILES):
        path.unlink(missing_ok=True)  # several times faster than to write over it
        path.write_bytes(mutated(generator, whole))
        try:
            is_checkpoint(path)
            read += len(arrays_of(path))
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ")
    assert 0 < read < 3 * FUZZED_FILES
