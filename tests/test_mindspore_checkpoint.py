"""MindSpore's `.ckpt` files: those that MindSpore wrote are read, and those written here are loaded by it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from crossdistil.converters import mindspore_checkpoint
from crossdistil.converters.mindspore_checkpoint import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensors import DTYPES, TensorInfo, dtype_name
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.checkpoint_files import assert_same_bits, tensors_of
from crossdistil.tests.mindspore_checkpoint_files import MINDSPORE, saving, value, with_checksum

NAMES = {dtype: name for name, dtype in mindspore_checkpoint._TYPES.items()}


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


@pytest.fixture
def saved(tmp_path):
    """`saved(data)`: the path of a file of these bytes."""
    return saving(tmp_path)


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
    checkpoint = open_checkpoint(
        saved(
            value("table", [2], "int32", b"12345678", maps=True)
            + value("a", [1], "Int8", b"1")
            + value("z", [1], "Complex64", b"12345678")
            + value("q", [2], "Int4", b"1")
        )
    )
    assert list(checkpoint.tensors) == ["a"] and list(checkpoint.skipped) == ["table", "z", "q"]
    assert "MapParameter" in checkpoint.skipped["table"] and "Complex64" in checkpoint.skipped["z"]
    assert is_checkpoint(saved(value("table", [2], "int32", b"12345678", maps=True)))


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
infos = [TensorInfo(str(index), (2, 1 << 20), "F32") for index in range(12)]
write(folder, [Tensor(info, lambda: np.ones((2, 1 << 20), np.float32)) for info in infos], "a.ckpt", slice_size=3 << 20)
write(folder, list(open_checkpoint(folder / "a.ckpt").tensors.values()), "b.ckpt")
open_checkpoint(folder / "b.ckpt")
print(peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert 6 < int(result.stdout) < 8 + 60


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
