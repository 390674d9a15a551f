"""OneFlow's folders, those of flow.save and the older ones of variables: what they hold is read, and what is written comes
back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossdistil.converters import oneflow_legacy
from crossdistil.converters.oneflow_folder import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensors import DTYPES, Tensor, TensorInfo, dtype_name
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.checkpoint_files import assert_same_bits, tensors_of
from crossdistil.tests.oneflow_folder_files import (
    arrays_of_all_types,
    dictionary,
    flow_saved,
    meta_of,
    saved,
    tensor_at,
    text,
    variables,
)

__all__ = ["saved", "variables"]

# ---------------------------------------------------------------------------------------------- the formats


def test_a_folder_of_oneflow(saved):
    assert is_checkpoint(saved)
    checkpoint = open_checkpoint(saved)
    assert list(checkpoint.tensors) == ["weight", "ids"] and checkpoint.skipped == {} and "no checksums" in checkpoint.notes[0]
    weight, ids = (tensor.load() for tensor in checkpoint.tensors.values())
    assert_same_bits(weight, np.arange(6, dtype="<f4").reshape(2, 3))
    assert_same_bits(ids, np.arange(4))
    assert weight.flags.writeable and weight.flags.c_contiguous


def test_every_type_comes_back(tmp_path):
    arrays = arrays_of_all_types()
    write(tmp_path, tensors_of(arrays))
    assert (tmp_path / "tensor_0" / "meta").read_text() == "shape {\n}\ndata_type: kFloat\n"
    assert (tmp_path / "tensor_2" / "meta").read_text() == "shape {\n  dim: 2\n  dim: 1\n  dim: 3\n}\ndata_type: kFloat\n"
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == list(arrays)
    for name, array in arrays.items():
        assert checkpoint.tensors[name].info == TensorInfo(name, array.shape, dtype_name(array.dtype))
        assert_same_bits(checkpoint.tensors[name].load(), array)
    again = tmp_path / "again"
    again.mkdir()
    write(again, list(checkpoint.tensors.values()))
    for file in sorted(again.rglob("*")):
        assert file.is_dir() or file.read_bytes() == (tmp_path / file.relative_to(again)).read_bytes()


@pytest.mark.parametrize("meta", [False, True])
def test_variables_come_back(tmp_path, meta):
    arrays = {"bert-encoder-weight": np.random.default_rng(0).normal(size=(3, 5)).astype("<f4"), "step": np.ones((), "<f4")}
    if meta:
        arrays |= {name: array for name, array in arrays_of_all_types().items() if "/" not in name}
    oneflow_legacy.write(tmp_path, tensors_of(arrays), meta=meta)
    assert is_checkpoint(tmp_path)
    assert (tmp_path / "snapshot_done").exists() == (tmp_path / "step" / "meta").exists() == meta
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.txt").write_text("no variable")
    checkpoint = open_checkpoint(tmp_path)
    assert sorted(checkpoint.tensors) == sorted(arrays) and checkpoint.skipped == {"logs": "a folder without the file 'out'"}
    assert any("shapes come from the configuration" in note for note in checkpoint.notes) != meta
    for name, array in arrays.items():
        assert_same_bits(checkpoint.tensors[name].load(), array if meta else array.reshape(-1))


def test_variables_that_are_perhaps_not_all(variables):
    assert len(open_checkpoint(variables).notes) == 1
    (variables / "snapshot_done").unlink()
    assert "snapshot_done" in open_checkpoint(variables).notes[1]


def test_bfloat16_is_float32_in_a_folder_of_oneflow(saved):
    # flow.save of a bfloat16 tensor writes four bytes for each element.
    (saved / "tensor_2" / "meta").write_text(meta_of(2, 3, kind="kBFloat16"))
    assert_same_bits(open_checkpoint(saved).tensors["weight"].load(), np.arange(6, dtype="<f4").reshape(2, 3))
    (saved / "tensor_2" / "out").write_bytes(np.arange(6).astype(DTYPES["BF16"]).tobytes())
    assert_same_bits(open_checkpoint(saved).tensors["weight"].load(), np.arange(6).astype(DTYPES["BF16"]).reshape(2, 3))


def test_what_cannot_be_written(tmp_path):
    array = np.zeros(3, "<f4")

    def one(name="a", shape=(3,), dtype="F32", array=array):
        return [Tensor(TensorInfo(name, shape, dtype), lambda: array)]

    raw = {"meta": False}
    for index, (function, tensors, options, message) in enumerate(
        (
            (write, one() * 2, {}, "there are two tensors of one name"),
            (write, one(shape=(3, 1)), {}, r"'a': is float32 \(3,\), but was announced as F32 \(3, 1\)"),
            (write, one(dtype="BF16", array=array.astype(DTYPES["BF16"])), {}, "'a': is BF16, which OneFlow cannot load"),
            (write, one(dtype="I16", array=array.astype("<i2")), {}, "'a': is I16, which OneFlow cannot load"),
            (oneflow_legacy.write, one() * 2, {}, "'a': is already there"),
            (oneflow_legacy.write, one("a/b"), {}, "'a/b' is no name of a variable"),
            (oneflow_legacy.write, one(".."), {}, r"'\.\.' is no name of a variable"),
            (oneflow_legacy.write, one("a" * 256), {}, "is no name of a variable"),
            (oneflow_legacy.write, one("snapshot_done"), {}, "is no name of a variable"),
            (oneflow_legacy.write, one(dtype="I64", array=array.astype("<i8")), raw, "'a' is I64, but without meta only F32 can"),
        )
    ):
        (tmp_path / str(index)).mkdir()
        with pytest.raises(CheckpointError, match=message):
            function(tmp_path / str(index), tensors, **options)


# ---------------------------------------------------------------------------------------------- state dicts in dictionaries


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_a_state_dict_in_a_dictionary(saved, key):
    entries = {key: dictionary(w=tensor_at("tensor_2"), step=b"K\x07"), "optimizer": dictionary(w=tensor_at("tensor_3"))}
    entries |= {"epoch": b"K\x03", "best": b"G" + bytes(8), "name": text("x"), "list": b"]", "last": tensor_at("tensor_3")}
    if key != "state_dict":
        entries.pop("last")
    (saved / "pickled_data").write_bytes(flow_saved(dictionary(**entries)))
    checkpoint = open_checkpoint(saved)
    if key == "state_dict":  # tensors at the top are the state dict
        assert list(checkpoint.tensors) == ["last"] and checkpoint.skipped["state_dict"] == "a dictionary"
        return
    assert list(checkpoint.tensors) == ["w"] and repr(key) in checkpoint.notes[1]
    assert checkpoint.skipped == {
        "optimizer": "a dictionary",
        "epoch": "a value of type int",
        "best": "a value of type float",
        "name": "a text",
        "list": "a list",
        f"{key}.step": "a value of type int",
    }


def test_two_names_of_one_tensor(saved):
    shared = tensor_at("tensor_2") + b"\x94"
    (saved / "pickled_data").write_bytes(flow_saved(dictionary(a=shared, b=b"h\x00")))
    found = open_checkpoint(saved).tensors
    assert found["a"].load().tolist() == found["b"].load().tolist() and found["b"].info.name == "b"


# ---------------------------------------------------------------------------------------------- memory and files


@pytest.mark.parametrize("kind", ["oneflow_folder", "oneflow_legacy"])
def test_one_tensor_at_a_time_is_in_memory(tmp_path, kind):
    program = """
import re, sys
from pathlib import Path
import numpy as np
from crossdistil.converters import oneflow_folder, oneflow_legacy
from crossdistil.converters.tensors import Tensor, TensorInfo
# Not getrusage, which counts what the process was before it became this program.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10
before, folder, write = peak(), Path(sys.argv[1]), globals()[sys.argv[2]].write
infos = [TensorInfo(str(index), (2, 1 << 20), "F32") for index in range(12)]
(folder / "a").mkdir(), (folder / "b").mkdir()
write(folder / "a", [Tensor(info, lambda: np.ones((2, 1 << 20), np.float32)) for info in infos])
write(folder / "b", list(oneflow_folder.open_checkpoint(folder / "a").tensors.values()))
print(peak() - before)
"""
    command = [sys.executable, "-c", program, tmp_path, kind]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 6 < int(result.stdout) < 8 + 60


def test_files_are_not_kept_open(tmp_path):
    write(tmp_path, tensors_of({str(index): np.ones(2, "<f4") for index in range(50)}))
    before = len(list(Path("/proc/self/fd").iterdir()))
    tensors = open_checkpoint(tmp_path).tensors
    assert all(tensor.load().sum() == 2 for tensor in tensors.values())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
