"""safetensors files: those of safetensors, transformers and MindSpore are read, those written here are read by them, and what
is damaged is told with the file and the tensor."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from crossdistil.converters.safetensors_files import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensors import DTYPES, Tensor, TensorInfo, dtype_name
from crossdistil.core.errors import CheckpointError

FUZZED_FILES = 10_000


def tensors_of(arrays):
    """Tensors as a writer takes them."""
    return [
        Tensor(TensorInfo(name, array.shape, dtype_name(array.dtype)), lambda array=array: array)
        for name, array in arrays.items()
    ]


def arrays_of(path):
    return {name: tensor.load() for name, tensor in open_checkpoint(path).tensors.items()}


def every_type(generator=None):
    """An array of random bytes of each type, and all kinds of shapes."""
    generator = generator or np.random.default_rng(0)
    arrays = {}
    for name, dtype in DTYPES.items():
        bits = generator.integers(0, 2 if name == "BOOL" else 256, 24 * dtype.itemsize, dtype=np.uint8)
        arrays[f"x.{name}"] = bits.view(dtype).reshape(2, 3, 4)
    return arrays | {
        "scalar": np.array(1.5, np.float32),
        "counter": np.array(7, np.int64),
        "empty": np.empty((0, 3), np.float32),
        "umlaut-ä \U0001f600 \"'\\": np.arange(3, dtype=np.int8),
    }


def assert_same(found, expected):
    """Names, types, shapes and bits."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].flags.c_contiguous and found[name].flags.writeable, name
        assert found[name].tobytes() == array.tobytes(), name


def mutated(generator, data):
    """The bytes with one to three damages: cut, changed, put in, overwritten, or a number that became another."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        size = len(changed)
        place, count = int(generator.integers(size + 1)), int(generator.integers(1, 9))
        match generator.integers(6):
            case 0:
                del changed[place:]
            case 1 if place < size:
                changed[place] ^= 1 << int(generator.integers(8))
            case 2:
                changed[place:place] = generator.bytes(count)
            case 3:
                changed[place : place + count] = generator.choice([b"\xff", b"\x00", b"\x7f"]) * count
            case 4:
                changed[place : place + count] = generator.bytes(count)
            case 5:
                numbers = [0, 1, size, size + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
                number = struct.pack("<Q", numbers[generator.integers(len(numbers))])
                changed[place : place + 8] = number[: generator.choice([1, 2, 4, 8])]
    return bytes(changed)


# ---------------------------------------------------------------------------------------------- the same bytes

def test_what_is_written_is_what_the_library_writes(tmp_path):
    arrays = every_type()
    write(tmp_path, tensors_of(arrays))
    own = (tmp_path / "model.safetensors").read_bytes()
    # The library's NumPy part does not know bfloat16.
    plain = {name: array for name, array in arrays.items() if array.dtype != ml_dtypes.bfloat16}
    save_file(plain, tmp_path / "library.safetensors", {"format": "pt"})
    write(tmp_path, tensors_of(plain))
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "library.safetensors").read_bytes()
    write(tmp_path, tensors_of(dict(reversed(arrays.items()))))
    assert (tmp_path / "model.safetensors").read_bytes() == own


def test_every_type_comes_back(tmp_path):
    arrays = every_type()
    write(tmp_path, tensors_of(arrays))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert is_checkpoint(path)
        assert_same(arrays_of(path), {name: arrays[name] for name in open_checkpoint(path).tensors})
        assert open_checkpoint(path).tensors.keys() == arrays.keys()
    assert open_checkpoint(tmp_path).format == "safetensors (PyTorch)"


def test_arrays_in_another_order_of_memory(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write(tmp_path, tensors_of({"a": array.T}), "b.safetensors", metadata={})
    assert arrays_of(tmp_path / "b.safetensors")["a"].tolist() == array.T.tolist()
    assert open_checkpoint(tmp_path / "b.safetensors").format == "safetensors"


def test_several_files(tmp_path):
    arrays = {f"layer.{number}": np.full((5, number + 1), number, np.float32) for number in range(12)}
    write(tmp_path, tensors_of(arrays), shard_size=200)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": sum(array.nbytes for array in arrays.values())}
    names = sorted({path.name for path in tmp_path.glob("*.safetensors")})
    assert sorted(set(index["weight_map"].values())) == names and len(names) > 3
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    for name in names:
        single = arrays_of(tmp_path / name)
        assert len(single) == 1 or sum(array.nbytes for array in single.values()) <= 200
    assert_same(arrays_of(tmp_path), arrays)
    assert open_checkpoint(tmp_path).format == f"safetensors (PyTorch), {len(names)} files"


def test_one_shard_has_no_index(tmp_path):
    write(tmp_path, tensors_of({"a": np.ones(3)}), shard_size=1)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


# ---------------------------------------------------------------------------------------------- other libraries

@pytest.mark.only_backend("torch")
def test_torch_and_back(tmp_path):
    import torch
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save_torch

    arrays = every_type()
    write(tmp_path, tensors_of(arrays))
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == arrays.keys()
    for name, tensor in loaded.items():
        assert tuple(tensor.shape) == arrays[name].shape, name
        assert tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == arrays[name].tobytes(), name
    save_torch(loaded, tmp_path / "torch.safetensors", {"format": "pt"})
    assert (tmp_path / "torch.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert_same(arrays_of(tmp_path / "torch.safetensors"), {name: arrays[name] for name in loaded})


@pytest.mark.only_backend("torch")
def test_a_type_that_is_not_supported_is_named(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "model.safetensors"
    save_torch({"a": torch.ones(2), "scaled.weight": torch.ones(2).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: scaled\.weight is of type F8_E4M3, expected one of F64, "):
        open_checkpoint(path)


@pytest.fixture
def tiny_bert():
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertModel(BertConfig(vocab_size=50, max_position_embeddings=20, **sizes)).eval()


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("size", ["1GB", "5KB"])
def test_transformers_and_back(tmp_path, tiny_bert, size):
    from transformers import BertModel

    tiny_bert.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    assert is_checkpoint(tmp_path / "theirs")
    opened = open_checkpoint(tmp_path / "theirs")
    expected = {name: tensor.numpy() for name, tensor in tiny_bert.state_dict().items()}
    assert opened.tensors.keys() == expected.keys()
    assert_same(arrays_of(tmp_path / "theirs"), {name: expected[name] for name in opened.tensors})
    assert ("files" in opened.format) == (size == "5KB")

    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text((tmp_path / "theirs" / "config.json").read_text())
    write(tmp_path / "own", list(opened.tensors.values()), shard_size=None if size == "1GB" else 5000)
    assert (len(list((tmp_path / "own").glob("*.safetensors"))) > 1) == (size == "5KB")
    model, report = BertModel.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert not any(report.values()), report
    assert_same({name: tensor.numpy() for name, tensor in model.state_dict().items()}, expected)


@pytest.mark.only_backend("mindspore")
@pytest.mark.parametrize("check", [False, True])
def test_mindspore_and_back(tmp_path, check):
    import mindspore

    generator = np.random.default_rng(0)
    # MindSpore has no empty parameters; its checksum fails for bfloat16, and is another one for counters.
    left_out = ("empty", "x.BF16", "counter") if check else ("empty",)
    arrays = {name: array for name, array in every_type(generator).items() if name not in left_out}
    rows = [
        {"name": name, "data": mindspore.Tensor.from_numpy(array.copy())} for name, array in arrays.items() if name != "x.BF16"
    ]
    if not check:
        rows.append({"name": "x.BF16", "data": mindspore.Tensor(arrays["x.BF16"].astype(np.float32), mindspore.bfloat16)})
        arrays["x.BF16"] = arrays["x.BF16"].astype(np.float32).astype(ml_dtypes.bfloat16)
    path = tmp_path / "theirs.safetensors"
    mindspore.save_checkpoint(rows, str(path), format="safetensors", crc_check=check)
    opened = open_checkpoint(path)
    assert opened.format == "safetensors (MindSpore)" and opened.tensors.keys() == arrays.keys()
    assert_same(arrays_of(path), {name: arrays[name] for name in opened.tensors})
    if check:
        rows.append({"name": "counter", "data": mindspore.Tensor(7, mindspore.int64)})
        mindspore.save_checkpoint(rows, str(tmp_path / "counted.safetensors"), format="safetensors", crc_check=True)
        counted = open_checkpoint(tmp_path / "counted.safetensors")
        assert counted.tensors["counter"].load() == 7 and "cannot be verified" in counted.notes[0]

    write(tmp_path, list(opened.tensors.values()), "own.safetensors", {"format": "ms"})
    loaded = mindspore.load_checkpoint(str(tmp_path / "own.safetensors"), format="safetensors")
    assert loaded.keys() == arrays.keys()
    for name, parameter in loaded.items():
        array = parameter.asnumpy()
        assert array.shape == arrays[name].shape and array.tobytes() == arrays[name].tobytes(), name


def test_the_checksum_of_mindspore(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"b": np.arange(4, dtype=np.float32), "a": np.arange(3, dtype=np.int8)}
    right = zlib.crc32(arrays["b"].tobytes(), zlib.crc32(b"b", zlib.crc32(arrays["a"].tobytes(), zlib.crc32(b"a"))))
    write(tmp_path, tensors_of(arrays), path.name, {"format": "ms", "crc_num": str(right)})
    assert arrays_of(path)["b"].tolist() == [0, 1, 2, 3]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: is damaged: the checksum of its tensors is \d+, expected \d+"):
        open_checkpoint(path).tensors["b"].load()


def test_several_files_of_mindspore(tmp_path):
    arrays = {f"p{number}": np.full(3, number, np.float32) for number in range(3)}
    places = {name: f"part{number % 2}.safetensors" for number, name in enumerate(arrays)}
    for part in set(places.values()):
        write(tmp_path, tensors_of({name: arrays[name] for name in arrays if places[name] == part}), part, {"format": "ms"})
    (tmp_path / "param_name_map.json").write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": places}))
    assert is_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path).format == "safetensors (MindSpore), 2 files"
    assert_same(arrays_of(tmp_path), arrays)


def test_notes_of_mindspore(tmp_path):
    write(tmp_path, tensors_of({"a": np.ones(2, np.int8)}), metadata={"format": "ms", "remove_redundancy": "True"})
    assert "parameters of other ranks may be missing" in open_checkpoint(tmp_path).notes[0]
    write(tmp_path, tensors_of({"a": np.ones(2, np.int8)}), metadata={"format": "ms", "a": "Int4"})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: a is of type Int4, two numbers in a byte"):
        open_checkpoint(tmp_path)


# ---------------------------------------------------------------------------------------------- damage

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
    "no UTF-8": (struct.pack("<Q", 2) + b"{\xff", "the header: is no JSON"),
    "nested": (struct.pack("<Q", 100_000) + b"[" * 100_000, "the header: is no JSON"),
    "list": (struct.pack("<Q", 2) + b"[]", "the header is no object"),
    "long number": (struct.pack("<Q", 6000) + b'{"a":' + b"1" * 5994 + b"}", "the header: is no JSON"),
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
    "escape": (header_of(**{"a\x1b[31m": entry()}), r"a\?\[31m is no name of a tensor"),
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
    with pytest.raises(CheckpointError, match=r"a\.safetensors: the header: a is there twice"):
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


def test_each_tensor_is_loaded_once(tmp_path):
    loads = []

    def load():
        loads.append(1)
        return np.ones(2)

    write(tmp_path, [Tensor(TensorInfo(name, (2,), "F64"), load) for name in "abc"], shard_size=20)
    assert len(loads) == 3


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


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from crossdistil.converters import safetensors_files, torch_pickle
from crossdistil.converters.tensors import Tensor, TensorInfo
module = {"safetensors": safetensors_files, "torch": torch_pickle}[sys.argv[1]]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
made = [Tensor(TensorInfo(f"t{i}", (10, 1 << 20), "F32"), lambda: np.ones((10, 1 << 20), np.float32)) for i in range(5)]
folder = Path(sys.argv[2])
module.write(folder, made)
(folder / "second").mkdir()
module.write(folder / "second", list(module.open_checkpoint(folder).tensors.values()), shard_size=50 << 20)
assert [float(t.load().sum()) for t in module.open_checkpoint(folder / "second").tensors.values()] == [10 * 2.0**20] * 5
print(peak() - before)
"""


def memory_of(module, folder):
    """MiB above the start of a process that writes 5 tensors of 40 MiB, converts them to several files and reads those."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", MEMORY, module, folder], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return float(result.stdout)


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    assert memory_of("safetensors", tmp_path) < 40 + 60
