"""MindSpore's `.ckpt` files that are damaged, encrypted or of another program, and what such a file cannot hold, are refused."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.converters.mindspore_checkpoint import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensors import Tensor, TensorInfo
from crossdistil.core.errors import CheckpointError
from crossdistil.core.wire import delimited, number
from crossdistil.tests.checkpoint_files import tensors_of
from crossdistil.tests.mindspore_checkpoint_files import MINDSPORE, mutated, saving, value, with_checksum


@pytest.fixture
def saved(tmp_path):
    """`saved(data)`: the path of a file of these bytes."""
    return saving(tmp_path)


def test_other_files_are_no_checkpoints(tmp_path, saved):
    assert not is_checkpoint(tmp_path) and not is_checkpoint(tmp_path / "missing") and not is_checkpoint(tmp_path / "a\0b")
    for data in (
        b"",
        b"\n",
        b"PK\x03\x04" + bytes(100),
        b"\x80\x02}q\x00",
        b"the film was good\n",
        bytes(50),
        b"\xff" * 50,
        b"\x0a\x04\x0a\x02abc",
        b'{"a": 1}',
        value("a", [1], "float", b"1234"),
    ):
        path = saved(data)
        assert not is_checkpoint(path) and not is_checkpoint(tmp_path)
        for place in (path, tmp_path):
            with pytest.raises(CheckpointError, match=r"model\.ckpt: .*(is empty|no MindSpore checkpoint|has the type)"):
                open_checkpoint(place)
    for cipher in ("d8", "d9", "da"):
        path = saved(bytes.fromhex(f"{cipher}5e3a7f92071858") + bytes(50))
        assert is_checkpoint(path)
        with pytest.raises(CheckpointError, match=r"model\.ckpt: is encrypted \((AES-GCM|AES-CBC|SM4-CBC)\)"):
            open_checkpoint(path)


def test_folders(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"there is no \.ckpt file"):
        open_checkpoint(tmp_path)
    arrays = tensors_of({"a": np.zeros(2, "<f4")})
    write(tmp_path, arrays, "a.ckpt")
    (tmp_path / "other.ckpt").write_bytes(b"PK\x03\x04 of another program")
    assert open_checkpoint(tmp_path).path.name == "a.ckpt"
    write(tmp_path, arrays, "b.ckpt")
    with pytest.raises(CheckpointError, match=r"there are 2 checkpoints in this folder; name one of a\.ckpt, b\.ckpt"):
        open_checkpoint(tmp_path)


WRONG = {
    "too short": (value("a.w", [2, 3], "Float32", bytes(20)), r"'a\.w': has 20 bytes, but 24 are expected of the shape \[2, 3\]"),
    "too long": (value("a.w", [5], "BFloat16", bytes(11)), r"'a\.w': has 11 bytes, but 10"),
    "type": (value("a.w", [5], "Float33", bytes(20)), r"'a\.w': has the type 'Float33'"),
    "negative": (value("a.w", [-1], "Int8", b"1"), r"'a\.w': the shape .* is impossible"),
    "huge": (value("a.w", [1 << 60, 1 << 60], "Int8", b"1"), r"'a\.w': the shape .* is impossible"),
    "huge nothing": (value("a.w", [1 << 62, 0, 1 << 62], "Int8", b""), r"'a\.w': the shape .* is impossible"),
    "dimensions": (value("a.w", [1] * 40, "Int8", b"1"), r"'a\.w': it has more than 32 dimensions"),
    "twice": (b"".join(value(tag, [1], "Int8", b"1") for tag in "aba"), r"'a': it is there twice"),
    "parts": (value("a", [2], "Int8", b"1") + value("a", [2], "UInt8", b"1"), r"'a': its parts differ in shape or type"),
    "missing part": (value("a", [3], "Int8", b"1") + value("a", [3], "Int8", b"1"), r"'a': has 2 bytes, but 3 are expected"),
    "no tag": (delimited(1, delimited(2, b"")), "byte 2: it has not one tag and one tensor"),
    "no tensor": (delimited(1, delimited(1, b"a")), "it has not one tag and one tensor"),
    "no content": (delimited(1, delimited(1, b"a") + delimited(2, delimited(2, b"Int8"))), "'a': it has no type or no content"),
    "two contents": (
        delimited(1, delimited(1, b"a") + delimited(2, delimited(2, b"Int8") + delimited(3, b"a") * 2)),
        "'a': field 3 is there twice",
    ),
    "tag": (delimited(1, delimited(1, b"\xff") + delimited(2, b"")), "a name is not UTF-8"),
    "long tag": (value("a" * 5000, [1], "Int8", b"1"), "a name is 5,000 bytes long"),
    "field": (value("a", [1], "Int8", b"1") + delimited(2, b"x"), "what follows 'a': there is a field 2"),
    "number": (value("a", [1], "Int8", b"1") + number(1, 1), "what follows 'a': there is a field 1"),
    "length": (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(30), "9,223,372,036,854,775,807 bytes are announced"),
    "half a trailer": (value("a", [1], "Int8", b"1") + b"crc_n", "what follows 'a': wire type 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_named(saved, case):
    data, message = WRONG[case]
    for whole in (data, with_checksum(data)):
        if case != "half a trailer" or whole is data:
            with pytest.raises(CheckpointError, match=rf"model\.ckpt: .*{message}"):
                open_checkpoint(saved(whole))


def test_any_changed_bit_is_found(saved):
    for place in range(len(MINDSPORE) * 8):
        changed = bytearray(MINDSPORE)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(CheckpointError, match=r"model\.ckpt: "):
            open_checkpoint(saved(bytes(changed)))


def test_a_missing_end_is_found(saved):
    data = MINDSPORE[:-17]
    ends = set()
    for tag in (b"b", b"s", b"epoch", b"lr", b"ok", b"t"):
        ends.add(data.index(b"\x0a" + bytes([len(tag)]) + tag + b"\x12") - 2)
    for size in range(len(MINDSPORE)):
        path = saved(MINDSPORE[:size])
        if size in ends or size == len(data):  # between two values, which only a checksum would tell
            assert open_checkpoint(path).notes
            continue
        with pytest.raises(CheckpointError, match=r"model\.ckpt: "):
            open_checkpoint(path)
        if size >= 22:  # with the type of the first value
            assert is_checkpoint(path)


def test_a_file_that_shrinks_after_it_was_opened(saved):
    path = saved(value("a.w", [100], "Float32", bytes(400)))
    tensor = open_checkpoint(path).tensors["a.w"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"model\.ckpt: 'a\.w': the file became shorter"):
        tensor.load()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.ckpt: 'a\.w': cannot be read: No such file"):
        tensor.load()


def test_what_cannot_be_written(tmp_path):
    array = np.zeros(3, "<f4")
    one = Tensor(TensorInfo("a", (3,), "F32"), lambda: array)
    for wrong, message in (
        ([one, one], "there are two tensors 'a'"),
        ([Tensor(TensorInfo("a", (3, 1), "F32"), lambda: array)], r"'a': is float32 \(3,\), but was announced as F32 \(3, 1\)"),
        ([Tensor(TensorInfo("a", (3,), "I32"), lambda: array)], "'a': is float32"),
        ([Tensor(TensorInfo("a", (3,), "F32"), lambda: array.astype(">f4"))], "'a': is >f4"),
        ([Tensor(TensorInfo("a", (0,), "F32"), lambda: array[:0])], "'a': has the shape .0., which MindSpore would read"),
    ):
        with pytest.raises(CheckpointError, match=message):
            write(tmp_path, wrong)


def test_ten_thousand_damaged_files(saved):
    generator = np.random.default_rng(0)
    data = MINDSPORE[:-17] + value("c", [4], "Int16", b"1234") + value("c", [4], "Int16", b"5678")
    opened = 0
    for count in range(10_000):
        changed = mutated(generator, data)
        path = saved(with_checksum(changed) if count % 2 else changed)
        is_checkpoint(path)
        try:
            for tensor in open_checkpoint(path).tensors.values():
                assert tensor.load().nbytes == tensor.info.size <= len(changed)
            opened += 1
        except CheckpointError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable() and len(str(error)) < 1000
    assert 100 < opened < 5000
