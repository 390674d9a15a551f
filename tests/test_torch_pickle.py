"""PyTorch's pickles: what torch.save writes is read with identical bits, what is written here is loaded by torch and
transformers, what would run code is refused and does not run, and what is damaged is told with the file and the tensor."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest

from crossdistil.converters import torch_pickle
from crossdistil.converters.torch_pickle import is_checkpoint, open_checkpoint, write
from crossdistil.converters.torch_pickle_write import _global as named
from crossdistil.core import safe_pickle
from crossdistil.core.errors import CheckpointError
from crossdistil.core.safe_pickle import load, load_next
from crossdistil.tests.test_safetensors_files import (
    FUZZED_FILES,
    assert_same,
    every_type,
    memory_of,
    mutated,
    tensors_of,
    tiny_bert,
)

__all__ = ["tiny_bert"]

# What pickletools says to damaged names, and PyTorch of its own jit.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence", "ignore:.*torch.jit")

torch_only = pytest.mark.only_backend("torch")
both_formats = pytest.mark.parametrize("zipped", [True, False])


def arrays_of(path):
    return {name: tensor.load() for name, tensor in open_checkpoint(path).tensors.items()}


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


def storing(path, value, zipped=True):
    import torch

    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


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
    assert memory_of("torch", tmp_path) < 40 + 60


# ---------------------------------------------------------------------------------------------- code

class Runs:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def harmful(folder):
    """Values that make a file when they are unpickled, as `pickle` shows."""
    target = str(folder / "ran")
    return {
        "os.system": Runs(os.system, f"touch {target}"),
        "eval": Runs(eval, f"open({target!r}, 'w').close()"),
        "open": Runs(open, target, "w"),
        "nested": {"model": {"w": [1, (2, {"a": Runs(exec, f"open({target!r}, 'w')")})]}},
        "getattr": Runs(getattr, "", "join"),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused_and_does_not_run(tmp_path, protocol):
    for name, value in harmful(tmp_path).items():
        data = pickle.dumps({"a": value}, protocol)
        with pytest.raises(CheckpointError, match=r"^w: refused: the pickle would run [a-z_]+\.[a-z]+, which is no part"):
            load(data, "w", {("collections", "OrderedDict"): dict})
        assert not (tmp_path / "ran").exists()
        pickle.loads(data)
        assert (tmp_path / "ran").exists() or name == "getattr"
        (tmp_path / "ran").unlink(missing_ok=True)


@torch_only
@both_formats
def test_code_in_a_checkpoint_is_refused(tmp_path, zipped):
    import torch

    for value in harmful(tmp_path).values():
        path = storing(tmp_path / "a.pt", {"a": torch.ones(2), "b": value}, zipped)
        with pytest.raises(CheckpointError, match=r"a\.pt: .*refused: the pickle would run "):
            open_checkpoint(path)
        assert is_checkpoint(path) and not (tmp_path / "ran").exists()


@torch_only
@both_formats
def test_a_whole_model_is_refused(tmp_path, zipped):
    import torch

    path = storing(tmp_path / "a.pt", torch.nn.Linear(2, 2), zipped)
    message = r"would run torch\.nn\.modules\.linear\.Linear, .*; if a whole model was saved, save its state_dict\(\) instead"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt: is a TorchScript program; save the model's state_dict\(\) instead"):
        open_checkpoint(tmp_path / "b.pt")


REFERENCE = b"(X\x07\0\0\0storage" + named("torch", "FloatStorage") + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
"""A storage of 4 floats."""


def archive(path, content, storage=bytes(16), order=b"little", compression=zipfile.ZIP_STORED, more=()):
    """A file of PyTorch's with this pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        entries = {"data.pkl": content, "byteorder": order, "data/0": storage, "version": b"3", **dict(more)}
        for name, data in entries.items():
            if data is not None:
                file.writestr(f"archive/{name}", data)
    return path


def pickled(arguments, function="_rebuild_tensor_v2"):
    """{"w": a tensor of these arguments}"""
    return b"\x80\x02}X\x01\0\0\0w" + named("torch._utils", function) + b"(" + arguments + b"tRs."


ARGUMENTS = b"K\x00K\x02K\x02\x86K\x02K\x01\x86\x89}"
HUGE = b"\x8a\x0a" + b"\xff" * 9 + b"\x00"
WILD = {
    "nothing": b"",
    "no storage": b"K\x01" + ARGUMENTS,
    "a function": named("torch._utils", "_rebuild_tensor_v2") + ARGUMENTS,
    "offset": REFERENCE + b"K\x01K\x02K\x02\x86K\x02K\x01\x86\x89}",
    "negative offset": REFERENCE + b"J\xff\xff\xff\xffK\x02K\x02\x86K\x02K\x01\x86\x89}",
    "huge offset": REFERENCE + HUGE + b"K\x02K\x02\x86K\x02K\x01\x86\x89}",
    "shape": REFERENCE + b"K\x00K\x02K\x03\x86K\x02K\x01\x86\x89}",
    "negative shape": REFERENCE + b"K\x00J\xff\xff\xff\xff\x85K\x01\x85\x89}",
    "huge shape": REFERENCE + b"K\x00" + HUGE + b"\x85K\x00\x85\x89}",
    "hidden shape": REFERENCE + b"K\x00K\x00" + HUGE + b"\x86K\x00K\x00\x86\x89}",
    "repeated": REFERENCE + b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85\x89}",
    "strides": REFERENCE + b"K\x00K\x02\x85K\x04\x85\x89}",
    "negative strides": REFERENCE + b"K\x03K\x02\x85J\xff\xff\xff\xff\x85\x89}",
    "huge strides": REFERENCE + b"K\x00K\x02\x85" + HUGE + b"\x85\x89}",
    "fewer strides": REFERENCE + b"K\x00K\x02K\x02\x86K\x01\x85\x89}",
    "text": REFERENCE + b"K\x00X\x01\0\0\0aK\x01\x85\x89}",
    "many": REFERENCE + b"K\x00(" + b"K\x01" * 40 + b"t(" + b"K\x01" * 40 + b"t\x89}",
    "negated": REFERENCE + ARGUMENTS + b"}X\x03\0\0\0neg\x88s",
    "too many": REFERENCE + ARGUMENTS * 2,
}


@pytest.mark.parametrize("case", WILD)
def test_wild_arguments(tmp_path, case):
    path = archive(tmp_path / "a.pt", pickled(WILD[case]))
    with pytest.raises(CheckpointError, match=r"a\.pt: "):
        open_checkpoint(path)


def test_what_wild_arguments_are_made_from(tmp_path):
    path = archive(tmp_path / "a.pt", pickled(REFERENCE + ARGUMENTS), np.arange(4, dtype=np.float32).tobytes())
    assert arrays_of(path)["w"].tolist() == [[0, 1], [2, 3]]


def nested_pairs(depth):
    """A list of itself twice, and so on: exponentially large to whoever walks it."""
    return b"]" + b"".join(b"q" + bytes([n]) + b"0]h" + bytes([n]) + b"ah" + bytes([n]) + b"a" for n in range(depth))


def pairs_of_dictionaries(depth):
    """The same, of dictionaries."""
    parts = (b"q" + bytes([n]) + b"0}K\x00h" + bytes([n]) + b"sK\x01h" + bytes([n]) + b"s" for n in range(depth))
    return b"}" + b"".join(parts)


TRAPS = {
    "empty": b"",
    "no end": b"]",
    "unknown": b"\xff",
    "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.",
    "longest bytes": b"\x80\x04\x8e" + b"\xff" * 8 + b"a.",
    "long text": b"X\xff\xff\xff\x7fa.",
    "long integer": b"\x8b\xff\xff\xff\x7f1.",
    "negative integer": b"\x8b\xff\xff\xff\xff1.",
    "many bits": b"\x8b\x00\x01\x00\x00" + b"\x01" * 256 + b".",
    "many digits": b"I" + b"1" * 100_000 + b"\n.",
    "long line": b"V" + b"1" * 100_000 + b"\n.",
    "memo": b"]r\xff\xff\xff\x7fj\xfe\xff\xff\x7f.",
    "text memo": b"]p" + b"9" * 20 + b"\ng1\n.",
    "no memo": b"h\x00.",
    "frames": b"\x80\x04\x95" + b"\xff" * 8 + b"]]" + b".",
    "protocol": b"\x80\x09].",
    "no mark": b"t.",
    "open mark": b"(].",
    "two values": b"]].",
    "no value": b"N0.",
    "empty stack": b"\x85.",
    "set": b"\x8f.",
    "extension": b"\x82\x01.",
    "old object": b"(ios\nsystem\n.",
    "object": b"(" + named("a", "b") + b"o.",
    "buffer": b"\x97.",
    "byte array": b"\x80\x05\x96\x01" + b"\0" * 7 + b"a.",
    "keyword arguments": named("a", "b") + b")}\x92.",
    "call of a text": b"X\x01\0\0\0a)R.",
    "attributes of a function": named("a", "b") + b"}X\x0c\0\0\0__defaults__)sb.",
    "attributes of a number": b"K\x01}b.",
    "reference": b"NQ.",
    "a list as key": b"}]Ns.",
    "a tuple as key": b"})Ns.",
    "keys of one hash": b"}\x8a\x09" + b"\x01" + b"\x00" * 7 + b"\x20Ns.",
    "key twice": b"}K\x01NsK\x01Ns.",
    "append to a dictionary": b"}Na.",
    "odd entries": b"}(Nu.",
    "name of a number": b"K\x01K\x01\x93.",
    "more": b"N.N",
}


@pytest.mark.parametrize("case", TRAPS)
def test_a_pickle_that_is_a_trap(case):
    with pytest.raises(CheckpointError, match="^w: "):
        load(TRAPS[case], "w", {("a", "b"): lambda: 1})


def test_too_many_instructions(monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 1000)
    assert load(b"]" + b"N0" * 499 + b".", "w", {}) == []
    with pytest.raises(CheckpointError, match="^w: the pickle has more than 1,000 instructions"):
        load(b"]" + b"N0" * 500 + b".", "w", {})


def test_what_a_function_returns_is_not_called():
    with pytest.raises(CheckpointError, match="^w: .*something is called that is no function"):
        load(named("a", "b") + b")R)R.", "w", {("a", "b"): lambda: os.getpid})


def test_no_more_is_asked_of_a_file_than_it_has():
    class File(io.BytesIO):
        asked = 0

        def read(self, count):
            self.asked = max(self.asked, count)
            return super().read(count)

        def readline(self, count):
            return self.read(count)

    for trap in ("long bytes", "longest bytes", "long text", "long integer", "negative integer", "frames", "long line"):
        file = File(TRAPS[trap])
        with pytest.raises(CheckpointError, match="^w: "):
            load_next(file, len(TRAPS[trap]), "w", {})
        assert file.asked <= 1 << 16


def test_depth_and_doubling_cost_nothing(tmp_path):
    deep = load(b"]" * 200_000 + b"a" * 199_999 + b".", "w", {})
    assert len(deep) == 1
    wide = load(nested_pairs(200) + b".", "w", {})
    assert wide[0] is wide[1]
    for content in (nested_pairs(200), pairs_of_dictionaries(200), b"}q\x00K\x01h\x00s"):
        for around in (b"%s.", b"}X\x05\0\0\0model%ss.", b"}K\x01%ss."):
            with pytest.raises(CheckpointError, match=r"a\.pt: "):
                open_checkpoint(archive(tmp_path / "a.pt", b"\x80\x02" + around % content))


def test_plain_values_of_every_protocol():
    values = [1, 2.5, -3, 2**70, None, True, False, "é\n", (1,), (1, 2, 3, 4), {"x": -(2**40)}, ()]
    value = {"a": values, 1: {2: 3}, None: "x" * 300}
    for protocol in range(6):
        assert load(pickle.dumps(value, protocol), "w", {}) == value
    for protocol in (3, 4, 5):
        assert load(pickle.dumps([b"abc", b"x" * 300], protocol), "w", {}) == [b"abc", b"x" * 300]
    assert load(b"U\x02\xc3\xa9.", "w", {}) == "é"  # a text of Python 2


# ---------------------------------------------------------------------------------------------- damage

def test_archives_that_are_wrong(tmp_path):
    good = pickled(REFERENCE + ARGUMENTS)
    path = tmp_path / "a.pt"
    for options, message in (
        ({"order": b"big"}, "was saved with byte order 'big', expected 'little'"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed or encrypted, which PyTorch's are not"),
        ({"storage": None}, "w: its storage 0 is missing"),
        ({"storage": bytes(12)}, "w: its storage has 12 bytes, expected 16"),
        ({"more": {"constants.pkl": b""}}, "is a TorchScript program"),
    ):
        with pytest.raises(CheckpointError, match=rf"a\.pt: .*{message}"):
            open_checkpoint(archive(path, good, **options))
    assert arrays_of(archive(path, good, order=None))["w"].tolist() == [[0, 0], [0, 0]]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "")
    assert not is_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"a\.pt: has 0 entries NAME/data\.pkl, expected 1"):
        open_checkpoint(path)


def test_any_changed_bit_of_the_numbers_is_found(tmp_path):
    arrays = {"a": np.arange(4, dtype=np.float32), "b.weight": np.arange(3, dtype=np.int8)}
    write(tmp_path, tensors_of(arrays))
    path = tmp_path / "pytorch_model.bin"
    whole = path.read_bytes()
    for name, array in arrays.items():
        start = whole.index(array.tobytes(), whole.index(b"archive/data/" + str([*arrays].index(name)).encode()))
        for place in range(start, start + array.nbytes):
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin: {name} is damaged: the checksum of its storage"):
                arrays_of(path)


@torch_only
def test_a_changed_bit_beside_a_view_is_found_once(tmp_path):
    import torch

    base = torch.arange(8, dtype=torch.float32)
    path = storing(tmp_path / "a.pt", {"left": base[:2], "right": base[6:], "steps": base[::3]})
    tensors = open_checkpoint(path).tensors
    assert [tensor.load().tolist() for tensor in tensors.values()] == [[0, 1], [6, 7], [0, 3, 6]]
    whole = bytearray(path.read_bytes())
    whole[whole.index(base.numpy().tobytes()) + 12] ^= 1
    path.write_bytes(whole)
    for name in ("left", "right", "steps"):
        with pytest.raises(CheckpointError, match=rf"a\.pt: {name} is damaged"):
            open_checkpoint(path).tensors[name].load()


@torch_only
@both_formats
def test_any_missing_end_is_found(tmp_path, zipped):
    import torch

    path = storing(tmp_path / "a.pt", {"first": torch.arange(4.0), "last": torch.arange(4.0) + 5}, zipped)
    whole = path.read_bytes()
    messages = set()
    for size in range(len(whole)):
        path.unlink()
        path.write_bytes(whole[:size])
        assert is_checkpoint(path) or size < 100
        with pytest.raises(CheckpointError, match=r"a\.pt: ") as error:
            open_checkpoint(path)
        messages.add(re.sub(r"\d+", "", str(error.value).removeprefix(f"{path}: ")))
    assert len(messages) > 1
    if not zipped:
        # PyTorch sorts the storages by their keys, which are addresses: either may be the last in the file.
        assert f"{'first' if whole.endswith(torch.arange(4.0).numpy().tobytes()) else 'last'} is cut off" in messages
        path.write_bytes(whole + b"a")
        with pytest.raises(CheckpointError, match=r"a\.pt: 1 bytes follow the last storage"):
            open_checkpoint(path)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "a"
    archives = (b"PK\x03\x04", b"PK\x03\x04" + b"\xff" * 100, b"PK\x05\x06" + bytes(18))
    for data in (b"", b"a", b"\x80", b"\x80\x02].", b"{}" * 50, *archives):
        path.write_bytes(data)
        assert not is_checkpoint(path)
        with pytest.raises(CheckpointError, match=r"/a: "):
            open_checkpoint(path)
    path.unlink()
    assert not is_checkpoint(path) and not is_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"/a: cannot be read: No such file"):
        open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"has neither pytorch_model\.bin nor pytorch_model\.bin\.index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 8)])
def test_an_entry_that_says_it_is_encrypted_or_compressed(tmp_path, place, value):
    path = archive(tmp_path / "a.pt", pickled(REFERENCE + ARGUMENTS))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + place] = value
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.pt: archive/data\.pkl is compressed or encrypted"):
        open_checkpoint(path)


def test_a_directory_that_is_large(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.pt", pickled(REFERENCE + ARGUMENTS))
    monkeypatch.setattr(torch_pickle, "_MAX_DIRECTORY", 200)
    with pytest.raises(CheckpointError, match=r"a\.pt: .*the directory has 2\d\d bytes, expected at most 200"):
        open_checkpoint(path)


def test_a_directory_that_claims_to_be_large(tmp_path):
    path = archive(tmp_path / "a.pt", pickled(REFERENCE + ARGUMENTS))
    data = bytearray(path.read_bytes())
    data[-10:-6] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.pt: is cut off or damaged: its directory"):
        open_checkpoint(path)


def fuzz(path, whole_of, generator):
    """How many of the damaged files were read, at most `FUZZED_FILES`; any other exception than CheckpointError fails."""
    read = 0
    for number in range(FUZZED_FILES):
        path.unlink(missing_ok=True)
        whole_of(number)
        try:
            is_checkpoint(path)
            for tensor in open_checkpoint(path).tensors.values():
                assert tensor.load().nbytes == tensor.info.size
            read += 1
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error)) < 1500
    return read


@torch_only
def test_ten_thousand_damaged_archives(tmp_path):
    import torch

    generator, path = np.random.default_rng(0), tmp_path / "a.pt"
    whole = storing(path, {"a": torch.ones(2, 2).T, "b": torch.ones(3, dtype=torch.bool), "n": 1}).read_bytes()
    with zipfile.ZipFile(path) as file:
        content, storage = file.read("a/data.pkl"), file.read("a/data/0")

    def damaged(number):
        if number % 2:
            path.write_bytes(mutated(generator, whole))
        else:  # the pickle alone, with the right checksum
            archive(path, mutated(generator, content), storage, more={"data/1": b"\1\1\1"})

    assert 50 < fuzz(path, damaged, generator) < FUZZED_FILES


@torch_only
def test_ten_thousand_damaged_files_of_the_old_format(tmp_path):
    import torch

    generator, path = np.random.default_rng(1), tmp_path / "a.pt"
    whole = storing(path, {"a": torch.ones(2, 2).T, "b": torch.ones(3, dtype=torch.bool), "n": 1}, False).read_bytes()
    assert 50 < fuzz(path, lambda _: path.write_bytes(mutated(generator, whole)), generator) < FUZZED_FILES


def test_ten_thousand_damaged_pickles():
    generator = np.random.default_rng(2)
    allowed = {("collections", "OrderedDict"): dict, ("builtins", "complex"): complex}
    value = {"a": [1, 2.5, 2**70, None, True, "text"], "b": collections.OrderedDict(x=(1, 2), y=1j), 3: ("a", ()), "c": "x" * 300}
    read = 0
    for number in range(FUZZED_FILES):
        data = mutated(generator, pickle.dumps(value, number % 6))
        try:
            load(data, "w", allowed)
            read += 1
        except CheckpointError as error:
            assert str(error).startswith("w: ")
    assert 50 < read < FUZZED_FILES
