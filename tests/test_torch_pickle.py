"""PyTorch's pickles: what torch.save writes is read with identical bits, and what is written here is loaded by torch and
transformers."""

from __future__ import annotations

import collections
import json
import struct
import zipfile

import numpy as np
import pytest

from crossdistil.converters.torch_pickle import is_checkpoint, open_checkpoint, write
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.checkpoint_files import assert_same, every_type, memory_of, tensors_of, tiny_bert
from crossdistil.tests.torch_pickle_files import arrays_of, both_formats, quiet, storing, torch_only

__all__ = ["tiny_bert"]

pytestmark = quiet


def array_of(tensor):
    """The NumPy array of a torch tensor, of any type."""
    import torch

    from crossdistil.converters.tensors import DTYPES
    from crossdistil.converters.torch_objects import DTYPE_NAMES

    dtype = DTYPES[DTYPE_NAMES[str(tensor.dtype).removeprefix("torch.")]]
    tensor = tensor.detach().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().view(dtype).reshape(tuple(tensor.shape))


def torch_tensors():
    """Tensors of each type, and of each way to lie in a storage."""
    import torch

    arrays = every_type()
    tensors = {}
    for name, array in arrays.items():
        dtype = {"BF16": torch.bfloat16}.get(name.removeprefix("x."))
        tensors[name] = torch.from_numpy(array.view(np.int16).copy()).view(dtype) if dtype else torch.from_numpy(array.copy())
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tensors |= {
        "shared.whole": base,
        "shared.view": base[1],
        "shared.transposed": base.permute(2, 0, 1),
        "shared.steps": base[:, ::2, 1:4],
        "shared.column": base[:, 1, 3],
        "shared.scalar": base[2, 3, 4],
        "shared.empty": base[:, 4:],
        "shared.again": base,
        "expanded": torch.arange(4.0).expand(3, 4),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "marked": torch.ones(3),
        "marked parameter": torch.nn.Parameter(torch.ones(3)),
    }
    tensors["marked"].tag = tensors["marked parameter"].tag = "a"
    return tensors


# ---------------------------------------------------------------------------------------------- what torch writes


@torch_only
@both_formats
def test_every_tensor_of_torch(tmp_path, zipped):
    tensors = torch_tensors()
    path = storing(tmp_path / "a.pt", tensors, zipped)
    assert is_checkpoint(path)
    opened = open_checkpoint(path)
    assert opened.format == "PyTorch checkpoint" + ("" if zipped else " (format before 1.6)")
    assert any("no checksums" in note for note in opened.notes) is not zipped
    assert list(opened.tensors) == list(tensors) and not opened.skipped
    assert_same(arrays_of(path), {name: array_of(tensor) for name, tensor in tensors.items()})


@torch_only
@both_formats
def test_a_module_and_a_training_checkpoint(tmp_path, zipped):
    import argparse

    import torch

    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Embedding(3, 2))
    optimizer = torch.optim.AdamW(module.parameters())
    module[:2](torch.ones(2, 3)).sum().backward()
    optimizer.step()
    expected = {name: array_of(tensor) for name, tensor in module.state_dict().items()}
    assert_same(arrays_of(storing(tmp_path / "a.bin", module.state_dict(), zipped)), expected)

    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    beside = {
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": 3,
        "best": np.float64(0.5),
        "rng_state": torch.get_rng_state(),
        "args": argparse.Namespace(lr=0.1, names=["a"]),
        "history": [0.5, None, ("a", {1, 2}), np.arange(3)],
    }
    for key in ("state_dict", "model", "model_state_dict", "module"):
        path = storing(tmp_path / "b.pt", {**beside, key: module.state_dict()}, zipped)
        opened = open_checkpoint(path)
        assert f"the tensors are those of its entry '{key}'" in opened.notes
        assert opened.skipped == {name: f"is beside '{key}'" for name in beside}
        assert_same(arrays_of(path), expected)


@torch_only
def test_nested_dictionaries(tmp_path):
    import torch

    one = torch.ones(2)
    opened = open_checkpoint(storing(tmp_path / "a.pt", {"body": {"layer": {0: one}}, "head": {"w": one}, "step": 3}))
    assert list(opened.tensors) == ["body.layer.0", "head.w"] and opened.skipped == {"step": "is a int, no tensor"}
    opened = open_checkpoint(storing(tmp_path / "a.pt", {"model": {"state_dict": {"w": one}, "n": 1}, "n": 2}))
    assert list(opened.tensors) == ["w"] and set(opened.skipped) == {"n", "model.n"}
    same = {"w": one}
    for value, message in (
        ({"a": same, "b": same}, "b is a dictionary that is there twice"),
        ({"a": {"b": one}, "a.b": one}, r"a tensor named 'a\.b' twice"),
        ({"a\n": one}, r"has a tensor named 'a\\n'"),
        ({"lr": 0.1, "list": [one]}, "holds no tensors by name"),
        ([one], r"holds a list, expected a dictionary of tensors, as model\.state_dict\(\) is"),
        (one, "holds a tensor, expected a dictionary"),
        ({"w": one.to(torch.float8_e4m3fn)}, "w is of type float8_e4m3fn, expected one of float64"),
        ({"w": one.to(torch.complex64)}, "w is of type complex64, expected one of float64"),
        ({"w": torch.zeros(1).expand(2**40)}, r"w: is a view that repeats 4 bytes as 4,398,046,511,104; save its \.contiguous"),
    ):
        with pytest.raises(CheckpointError, match=rf"a\.pt: .*{message}"):
            open_checkpoint(storing(tmp_path / "a.pt", value))


@torch_only
def test_a_file_without_checksums(tmp_path):
    import torch
    from torch.serialization import set_crc32_options

    set_crc32_options(False)
    try:
        path = storing(tmp_path / "a.pt", {"a": torch.arange(9.0)})
    finally:
        set_crc32_options(True)
    assert arrays_of(path)["a"].tolist() == [*range(9)]
    assert "was saved without checksums" in open_checkpoint(path).notes[0]


# ---------------------------------------------------------------------------------------------- what is written here


@torch_only
def test_torch_loads_what_is_written(tmp_path):
    import torch

    arrays = every_type()
    write(tmp_path, tensors_of(arrays))
    loaded = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert type(loaded) is collections.OrderedDict and list(loaded) == list(arrays)
    assert all(tensor.is_contiguous() for tensor in loaded.values())
    for options in ({}, {"mmap": True}):
        loaded = torch.load(tmp_path / "pytorch_model.bin", weights_only=True, **options)
        assert_same({name: array_of(tensor).copy() for name, tensor in loaded.items()}, arrays)
    loaded = torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert_same({name: array_of(tensor) for name, tensor in loaded.items()}, arrays)


@torch_only
def test_torch_loads_large_entries(tmp_path, monkeypatch):
    import torch

    # As if entries were above 4 GiB.
    arrays = every_type() | {"large": np.arange(1000, dtype=np.float32)}
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", 500)
        write(tmp_path, tensors_of(arrays))
    loaded = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert_same({name: array_of(tensor) for name, tensor in loaded.items()}, arrays)
    assert_same(arrays_of(tmp_path), arrays)
    assert_aligned(tmp_path / "pytorch_model.bin")


@torch_only
@pytest.mark.parametrize("size", [None, 5000])
def test_transformers_loads_what_is_written(tmp_path, tiny_bert, size):
    import torch
    from transformers import BertModel

    tiny_bert.config.save_pretrained(tmp_path)
    torch.save(tiny_bert.state_dict(), tmp_path / "theirs.bin")
    opened = open_checkpoint(tmp_path / "theirs.bin")
    write(tmp_path, list(opened.tensors.values()), shard_size=size)
    (tmp_path / "theirs.bin").unlink()
    assert (len(list(tmp_path.glob("*.bin"))) > 1) == (size is not None)
    model, report = BertModel.from_pretrained(tmp_path, output_loading_info=True, use_safetensors=False)
    assert not any(report.values()), report
    expected = {name: tensor.numpy() for name, tensor in tiny_bert.state_dict().items()}
    assert_same({name: tensor.numpy() for name, tensor in model.state_dict().items()}, expected)
    assert_same(arrays_of(tmp_path), expected)


def assert_aligned(path):
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            name, extra = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name + extra) % 64 == 0 and entry.compress_type == zipfile.ZIP_STORED


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    arrays = every_type()
    write(tmp_path, tensors_of(arrays))
    first = (tmp_path / "pytorch_model.bin").read_bytes()
    write(tmp_path, tensors_of(arrays))
    assert (tmp_path / "pytorch_model.bin").read_bytes() == first
    assert is_checkpoint(tmp_path) and is_checkpoint(tmp_path / "pytorch_model.bin")
    assert_same(arrays_of(tmp_path), arrays)
    assert_aligned(tmp_path / "pytorch_model.bin")


def test_several_files(tmp_path):
    arrays = {f"layer.{number}": np.full((5, number + 1), number, np.float32) for number in range(12)}
    write(tmp_path, tensors_of(arrays), shard_size=200)
    index = json.loads((tmp_path / "pytorch_model.bin.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.bin"))
    assert files[0] == f"pytorch_model-00001-of-{len(files):05d}.bin" and sorted(set(index["weight_map"].values())) == files
    assert index["metadata"] == {"total_size": sum(array.nbytes for array in arrays.values())}
    assert is_checkpoint(tmp_path) and open_checkpoint(tmp_path).format == f"PyTorch checkpoint, {len(files)} files"
    assert_same(arrays_of(tmp_path), arrays)
    (tmp_path / files[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"{files[1]}: is missing; pytorch_model\.bin\.index\.json expects layer"):
        open_checkpoint(tmp_path)


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    assert memory_of("torch", tmp_path) < 8 + 60
