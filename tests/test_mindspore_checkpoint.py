"""MindSpore's `.ckpt` files: those that MindSpore wrote, those that it loads, and every kind of damage."""

from __future__ import annotations

import binascii
import subprocess
import sys

import numpy as np
import pytest

from crossdistil.converters import mindspore_checkpoint
from crossdistil.converters.mindspore_checkpoint import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensors import DTYPES, Tensor, TensorInfo, dtype_name
from crossdistil.core.errors import CheckpointError
from crossdistil.core.wire import delimited, number

MINDSPORE = bytes.fromhex(
    "0a2e0a03612e771227080208031207466c6f617433321a18000000000000803f000000400000404000008040"
    "0000a0400a190a01621214080312084246 6c6f617431361a060000803f00400a140a0173120f1207466c6f617433321a04000060400a1a0a0565706f63"
    "6812111205496e7436341a0803000000000000000a150a026c72120f1207466c6f617433321a04cdcccc3d0a0f0a026f6b12091204426f6f6c1a0101"
    "0a1a0a0174121508001203737472 1a0c68000000e90000007900000063 72635f6e756d0000000000007ea8e743".replace(" ", "")
)
"""What mindspore.save_checkpoint of 2.10.0 wrote: two tensors, a scalar, and append_dict of each type, with crc_check."""

NAMES = {dtype: name for name, dtype in mindspore_checkpoint._TYPES.items()}


def tensors_of(arrays):
    return [Tensor(TensorInfo(name, array.shape, dtype_name(array.dtype)), lambda array=array: array)
            for name, array in arrays.items()]


def every_type():
    """An array of each type, with bits that no arithmetic makes, such as payloads of NaN."""
    generator = np.random.default_rng(0)
    arrays = {}
    for name, dtype in DTYPES.items():
        if name == "BOOL":
            arrays[name] = generator.integers(0, 2, (3, 5)).astype(bool)
        else:
            arrays[name] = np.frombuffer(generator.bytes(15 * dtype.itemsize), dtype).reshape(3, 5).copy()
    return arrays | {"scalar": np.float32(2.5).reshape(()), "cube/name é": np.arange(24, dtype="<i4").reshape(2, 3, 4)}


def assert_same_bits(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def value(tag, dims, kind, content, maps=False):
    """A value by hand."""
    tensor = b"".join(number(1, size) for size in dims) + delimited(2, kind.encode()) + delimited(3, content)
    return delimited(1, delimited(1, tag.encode()) + delimited(3 if maps else 2, tensor))


def with_checksum(data):
    return data + b"crc_num" + binascii.crc32(data).to_bytes(10, "big")


@pytest.fixture
def saved(tmp_path):
    """`saved(data)`: the path of a file of these bytes."""

    def save(data):
        path = tmp_path / "model.ckpt"
        path.unlink(missing_ok=True)  # a new file is faster than one that is overwritten
        path.write_bytes(data)
        return path

    return save


# ---------------------------------------------------------------------------------------------- the format

def test_a_file_that_mindspore_wrote(saved, tmp_path):
    path = saved(MINDSPORE)
    for place in (path, tmp_path):
        assert is_checkpoint(place)
        checkpoint = open_checkpoint(place)
        assert checkpoint.path == path and checkpoint.notes == [] and checkpoint.skipped == {"t": "a text"}
        assert list(checkpoint.tensors) == ["a.w", "b", "s", "epoch", "lr", "ok"]
        loaded = {name: tensor.load() for name, tensor in checkpoint.tensors.items()}
        assert loaded["a.w"].tolist() == [[0, 1, 2], [3, 4, 5]] and loaded["a.w"].dtype == np.float32
        assert loaded["b"].tolist() == [0, 1, 2] and loaded["b"].dtype == DTYPES["BF16"]
        assert [loaded[name].tolist() for name in ("s", "epoch", "ok")] == [3.5, 3, True]
        assert loaded["lr"] == np.float32(0.1) and loaded["epoch"].dtype == np.int64 and loaded["ok"].shape == ()
        assert all(array.flags.writeable and array.flags.c_contiguous for array in loaded.values())


def test_what_is_written_is_what_mindspore_writes(saved, tmp_path):
    checkpoint = open_checkpoint(saved(MINDSPORE))
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", list(checkpoint.tensors.values()))
    without_text = MINDSPORE[: MINDSPORE.index(b"\x0a\x1a\x0a\x01t")]
    assert (tmp_path / "out" / "model.ckpt").read_bytes() == with_checksum(without_text)
    write(tmp_path / "out", list(checkpoint.tensors.values()), file_name="b.ckpt", crc=False)
    assert (tmp_path / "out" / "b.ckpt").read_bytes() == without_text


def test_every_type_comes_back(tmp_path):
    arrays = every_type() | {"none": np.zeros((0, 3), "<f2")}
    for slice_size in (1 << 20, 7, 1):  # a value may end within an element
        write(tmp_path, tensors_of(arrays), slice_size=slice_size)
        found = open_checkpoint(tmp_path / "model.ckpt").tensors
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].info == TensorInfo(name, array.shape, dtype_name(array.dtype))
            assert_same_bits(found[name].load(), array)


def test_a_file_without_checksum_says_so(tmp_path):
    write(tmp_path, tensors_of(every_type()), crc=False)
    assert any("no checksum" in note for note in open_checkpoint(tmp_path).notes)


def test_old_scalars_and_empty_tensors(saved):
    found = open_checkpoint(saved(value("a", [0], "Int32", b"\x07\0\0\0") + value("b", [0], "Int32", b""))).tensors
    assert found["a"].info.shape == () and found["a"].load() == 7
    assert found["b"].info.shape == (0,) and found["b"].load().tolist() == []


def test_what_is_no_tensor_is_skipped(saved):
    checkpoint = open_checkpoint(saved(
        value("table", [2], "int32", b"12345678", maps=True) + value("a", [1], "Int8", b"1")
        + value("z", [1], "Complex64", b"12345678") + value("q", [2], "Int4", b"1")
    ))
    assert list(checkpoint.tensors) == ["a"] and list(checkpoint.skipped) == ["table", "z", "q"]
    assert "MapParameter" in checkpoint.skipped["table"] and "Complex64" in checkpoint.skipped["z"]
    assert is_checkpoint(saved(value("table", [2], "int32", b"12345678", maps=True)))


# ---------------------------------------------------------------------------------------------- wrong files

def test_other_files_are_no_checkpoints(tmp_path, saved):
    assert not is_checkpoint(tmp_path) and not is_checkpoint(tmp_path / "missing") and not is_checkpoint(tmp_path / "a\0b")
    for data in (b"", b"\n", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00", b"the film was good\n", bytes(50), b"\xff" * 50,
                 b"\x0a\x04\x0a\x02abc", b'{"a": 1}', value("a", [1], "float", b"1234")):
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


def mutated(generator, data):
    """A damaged copy: cut, flipped, longer, overwritten, or with another length."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        kind, place, count = generator.integers(6), int(generator.integers(max(1, len(changed)))), int(generator.integers(1, 9))
        if kind == 0:
            del changed[place:]
        elif kind == 1 and changed:
            changed[place] ^= 1 << int(generator.integers(8))
        elif kind == 2:
            changed[place:place] = generator.bytes(count)
        elif kind == 3:
            changed[place : place + count] = generator.bytes(count)
        elif kind == 4:
            changed[place : place + count] = b"\xff" * count
        elif changed:
            changed[place] = int(generator.integers(len(data)))
    return bytes(changed)


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


def test_one_tensor_at_a_time_is_in_memory(tmp_path):
    program = """
import re, sys
from pathlib import Path
import numpy as np
from crossdistil.converters.mindspore_checkpoint import open_checkpoint, write
from crossdistil.converters.tensors import Tensor, TensorInfo
# Not getrusage, which counts what the process was before it became this program.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10
before, folder = peak(), Path(sys.argv[1])
infos = [TensorInfo(str(index), (10, 1 << 20), "F32") for index in range(5)]
write(folder, [Tensor(info, lambda: np.ones((10, 1 << 20), np.float32)) for info in infos], "a.ckpt", slice_size=16 << 20)
write(folder, list(open_checkpoint(folder / "a.ckpt").tensors.values()), "b.ckpt")
open_checkpoint(folder / "b.ckpt")
print(peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert 30 < int(result.stdout) < 40 + 60


# ---------------------------------------------------------------------------------------------- MindSpore itself

def mindspore_tensor(array):
    import mindspore

    if array.dtype == DTYPES["BF16"]:  # from its float32 value, which has the same upper bits
        return mindspore.Tensor(array.astype(np.float32), mindspore.bfloat16)
    return mindspore.Tensor(array)


def bits_of(tensor):
    """Bytes of what MindSpore holds."""
    return bytes(tensor.get_bytes())


def quiet_nans(arrays):
    """Without bit patterns of bfloat16 that float32 does not carry over."""
    arrays["BF16"] = np.array([[0, 1.5, -2], [3e38, 1e-40, np.inf]]).astype(DTYPES["BF16"])
    return arrays


@pytest.mark.only_backend("mindspore")
@pytest.mark.parametrize("crc", [False, True])
@pytest.mark.parametrize("sliced", [False, True])
def test_what_mindspore_saves_is_read(tmp_path, monkeypatch, crc, sliced):
    import mindspore
    from mindspore.train import serialization

    arrays = quiet_nans(every_type()) | {"large": np.arange(1000, dtype="<f4").reshape(10, 100)}
    if sliced:
        monkeypatch.setattr(serialization, "SLICE_SIZE", 1)  # KiB
    path = tmp_path / "model.ckpt"
    append = {"epoch": 3, "rate": 0.1, "flag": True, "note": "a text — é"}
    parameters = [{"name": name, "data": mindspore_tensor(array)} for name, array in arrays.items()]
    mindspore.save_checkpoint(parameters, str(path), append_dict=append, crc_check=crc)
    data = path.read_bytes()
    assert (data.count(b"\x05large") == 4) == sliced
    checkpoint = open_checkpoint(path)
    assert bool(checkpoint.notes) != crc and checkpoint.skipped == {"note": "a text"}
    loaded = {name: tensor.load() for name, tensor in checkpoint.tensors.items()}
    assert list(loaded) == [*arrays, "epoch", "rate", "flag"]
    for name, array in arrays.items():
        assert_same_bits(loaded[name], array)
    assert loaded["epoch"] == 3 and loaded["epoch"].dtype == np.int64 and loaded["flag"].tolist() is True
    assert loaded["rate"] == np.float32(0.1)
    # And written again, byte for byte.
    mindspore.save_checkpoint(parameters, str(tmp_path / "plain.ckpt"), crc_check=crc)
    slice_size = 1024 if sliced else mindspore_checkpoint.SLICE_SIZE
    kept = [tensor for name, tensor in checkpoint.tensors.items() if name in arrays]
    write(tmp_path, kept, "again.ckpt", crc=crc, slice_size=slice_size)
    assert (tmp_path / "again.ckpt").read_bytes() == (tmp_path / "plain.ckpt").read_bytes()


@pytest.mark.only_backend("mindspore")
@pytest.mark.parametrize("slice_size", [mindspore_checkpoint.SLICE_SIZE, 48])
@pytest.mark.parametrize("crc", [False, True])
def test_mindspore_loads_what_is_written(tmp_path, slice_size, crc):
    import mindspore

    arrays = every_type() | {"none": np.zeros((0, 3), "<f2")}
    write(tmp_path, tensors_of(arrays), crc=crc, slice_size=slice_size)
    loaded = mindspore.load_checkpoint(str(tmp_path / "model.ckpt"), crc_check=crc)
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].shape == array.shape and str(loaded[name].dtype) == NAMES[dtype_name(array.dtype)]
        assert bits_of(loaded[name]) == array.tobytes()


@pytest.mark.only_backend("mindspore")
def test_mindspore_verifies_the_checksum_that_is_written(tmp_path):
    import mindspore

    write(tmp_path, tensors_of({"a": np.arange(100, dtype="<f4")}))
    path = tmp_path / "model.ckpt"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="may be corrupted|Failed to read"):
        mindspore.load_checkpoint(str(path), crc_check=True)
    with pytest.raises(CheckpointError, match=r"model\.ckpt: is damaged: the checksum"):
        open_checkpoint(path)


@pytest.mark.only_backend("mindspore")
def test_a_cell_is_saved_and_loaded(tmp_path):
    import mindspore

    network = mindspore.nn.SequentialCell(mindspore.nn.Dense(3, 4), mindspore.nn.LayerNorm((4,)))
    mindspore.save_checkpoint(network, str(tmp_path / "a.ckpt"))
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == ["0.weight", "0.bias", "1.gamma", "1.beta"]
    write(tmp_path, list(checkpoint.tensors.values()), "b.ckpt")
    other = mindspore.nn.SequentialCell(mindspore.nn.Dense(3, 4), mindspore.nn.LayerNorm((4,)))
    not_loaded, extra = mindspore.load_param_into_net(other, mindspore.load_checkpoint(str(tmp_path / "b.ckpt")))
    assert (not_loaded, extra) == ([], [])
    for old, new in zip(network.get_parameters(), other.get_parameters()):
        assert bits_of(old) == bits_of(new)


@pytest.mark.only_backend("mindspore")
def test_encrypted_files_are_named(tmp_path):
    import mindspore

    parameters = [{"name": "a", "data": mindspore.Tensor([1.0])}]
    for mode in ("AES-GCM", "AES-CBC", "SM4-CBC"):
        mindspore.save_checkpoint(parameters, str(tmp_path / "a.ckpt"), enc_key=b"0123456789ABCDEF", enc_mode=mode)
        with pytest.raises(CheckpointError, match=rf"a\.ckpt: is encrypted \({mode}\)"):
            open_checkpoint(tmp_path)
