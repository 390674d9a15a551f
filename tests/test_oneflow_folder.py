"""OneFlow's folders: those that OneFlow wrote, those that it loads, the older ones, and every kind of damage."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crossdistil.converters import oneflow_legacy
from crossdistil.converters.oneflow_folder import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensors import DTYPES, Tensor, TensorInfo, dtype_name
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.test_mindspore_checkpoint import assert_same_bits, mutated, tensors_of

LOADABLE = ("F32", "F64", "F16", "I64", "I32", "I8", "U8", "BOOL")

ONEFLOW = bytes.fromhex(
    "800495c5000000000000007d94288c1070726f746f636f6c5f76657273696f6e944b018c0464617461948c0b636f6c6c656374696f6e73948c0b4f72"
    "646572656444696374949394295294288c06776569676874948c0a6f6e65666c6f772e6e6e948c09506172616d657465729493942981947d948c0470"
    "617468948c0874656e736f725f329473628c03696473948c076f6e65666c6f77948c0654656e736f729493942981947d94680d8c0874656e736f725f"
    "33947362757d948c095f6d657461646174619468052952947362752e"
)
"""The `pickled_data` that flow.save of 0.9.0 wrote for the state dict of a parameter and a buffer."""


def arrays_of_all_types():
    """An array of each type that OneFlow has, with bits that no arithmetic makes, such as payloads of NaN."""
    generator = np.random.default_rng(0)
    arrays = {"scalar": np.float32(2.5).reshape(()), "none": np.zeros((0, 3), "<f4"), "layer.0 — é/w": np.ones((2, 1, 3), "<f4")}
    for name in LOADABLE:
        bits = generator.bytes(15 * DTYPES[name].itemsize) if name != "BOOL" else bytes(generator.integers(0, 2, 15).tolist())
        arrays[name] = np.frombuffer(bits, DTYPES[name]).reshape(3, 5).copy()
    return arrays


def put(folder, content, meta):
    folder.mkdir(parents=True)
    (folder / "out").write_bytes(content)
    if meta is not None:
        (folder / "meta").write_text(meta)


def meta_of(*dims, kind="kFloat"):
    return "shape {\n" + "".join(f"  dim: {size}\n" for size in dims) + f"}}\ndata_type: {kind}\n"


@pytest.fixture
def saved(tmp_path):
    """A folder as flow.save wrote it, of a weight [2, 3] and ids [4]."""
    folder = tmp_path / "model"
    put(folder / "tensor_2", np.arange(6, dtype="<f4").tobytes(), meta_of(2, 3))
    put(folder / "tensor_3", np.arange(4, dtype="<i8").tobytes(), meta_of(4, kind="kInt64"))
    (folder / "pickled_data").write_bytes(ONEFLOW)
    return folder


@pytest.fixture
def variables(tmp_path):
    """A folder of variables with their shapes."""
    folder = tmp_path / "variables"
    folder.mkdir()
    oneflow_legacy.write(folder, tensors_of({"bert-a.w": np.ones((2, 3), "<f4"), "bert-a.w-m": np.zeros((2, 3), "<f4")}))
    return folder


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
    for index, (function, tensors, options, message) in enumerate((
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
    )):
        (tmp_path / str(index)).mkdir()
        with pytest.raises(CheckpointError, match=message):
            function(tmp_path / str(index), tensors, **options)


# ---------------------------------------------------------------------------------------------- state dicts in dictionaries

def text(value):
    return pickle.BINUNICODE + len(value.encode()).to_bytes(4, "little") + value.encode()


def tensor_at(path, module="oneflow", name="Tensor"):
    return text(module) + text(name) + b"\x93)\x81}" + text("path") + text(path) + b"sb"


def dictionary(**entries):
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def flow_saved(data):
    return b"\x80\x04" + dictionary(protocol_version=b"K\x01", data=data) + b"."


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
        "optimizer": "a dictionary", "epoch": "a value of type int", "best": "a value of type float", "name": "a text",
        "list": "a list", f"{key}.step": "a value of type int",
    }


def test_two_names_of_one_tensor(saved):
    shared = tensor_at("tensor_2") + b"\x94"
    (saved / "pickled_data").write_bytes(flow_saved(dictionary(a=shared, b=b"h\x00")))
    found = open_checkpoint(saved).tensors
    assert found["a"].load().tolist() == found["b"].load().tolist() and found["b"].info.name == "b"


PICKLES = {
    "system": (b"cposix\nsystem\n(Vtrue\ntR.", "refused: the pickle would run posix.system"),
    "in a tensor": (flow_saved(dictionary(a=tensor_at("tensor_2", "oneflow.nn", "Module"))), "would run oneflow.nn.Module"),
    "no dictionary": (b"\x80\x04].", "is not of flow.save"),
    "version": (b"\x80\x04" + dictionary(protocol_version=b"K\x02", data=b"}") + b".", "is not of flow.save"),
    "true": (b"\x80\x04" + dictionary(protocol_version=b"\x88", data=b"}") + b".", "is not of flow.save"),
    "no data": (b"\x80\x04" + dictionary(protocol_version=b"K\x01") + b".", "is not of flow.save"),
    "list": (flow_saved(b"]"), "is a list; expected a state dict"),
    "empty": (flow_saved(b"}"), "holds no state dict; .* found nothing"),
    "deep": (flow_saved(dictionary(net=dictionary(w=tensor_at("tensor_2")))), "holds no state dict; .* found net"),
    "no path": (flow_saved(dictionary(a=text("oneflow") + text("Tensor") + b"\x93)\x81")), "'a': has no path"),
    "no text": (flow_saved(dictionary(a=tensor_at("tensor_2")[:-15] + b"K\x01sb")), "not one path"),
    "two paths": (flow_saved(dictionary(a=tensor_at("tensor_2") + b"}" + text("path") + text("x") + b"sb")), "not one path"),
    "arguments": (flow_saved(dictionary(a=text("oneflow") + text("Tensor") + b"\x93K\x01\x85\x81")), "no pickle of what it"),
    "number": (flow_saved(b"}(K\x01" + tensor_at("tensor_2") + b"u"), "the name of a tensor is a int"),
    "cut off": (ONEFLOW[:-30], "no pickle of what it should hold, or damaged"),
    "nothing": (b"", "no pickle of what it should hold, or damaged"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_wrong_pickle_is_named(saved, case):
    data, message = PICKLES[case]
    (saved / "pickled_data").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"model.*: .*{message}"):
        open_checkpoint(saved)


def test_paths_do_not_lead_out(saved, tmp_path):
    shutil.copytree(saved / "tensor_2", tmp_path / "outside")
    outside = str(tmp_path / "outside")
    for path in ("../outside", outside, "..", ".", "", "tensor_2/../../outside", "a\0b", "..\\outside", "tensor_2/"):
        (saved / "pickled_data").write_bytes(flow_saved(dictionary(w=tensor_at(path))))
        with pytest.raises(CheckpointError, match=r"model: 'w': refused: its path .* is no name of a folder"):
            open_checkpoint(saved)
    (saved / "inside").symlink_to(tmp_path / "outside")
    (saved / "pickled_data").write_bytes(flow_saved(dictionary(w=tensor_at("inside"))))
    with pytest.raises(CheckpointError, match=r"inside: 'w': is a link"):
        open_checkpoint(saved)
    for name in ("out", "meta"):
        (saved / "inside").unlink(missing_ok=True)
        shutil.copytree(saved / "tensor_2", saved / "inside", dirs_exist_ok=True)
        (saved / "inside" / name).unlink()
        (saved / "inside" / name).symlink_to(tmp_path / "outside" / name)
        with pytest.raises(CheckpointError, match=rf"inside: 'w': {name} is a link"):
            open_checkpoint(saved)
        shutil.rmtree(saved / "inside")


def test_links_among_variables(variables, tmp_path):
    shutil.copytree(variables / "bert-a.w", tmp_path / "outside")
    (variables / "linked").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match="linked: 'linked': is a link"):
        open_checkpoint(variables)


# ---------------------------------------------------------------------------------------------- damaged variables

METAS = {
    "empty": ("", "meta is not understood"),
    "words": ("the film was good", "meta is not understood"),
    "bytes": ("\x00\xff", "meta is not understood"),
    "no type": ("shape {\n  dim: 2\n  dim: 3\n}\n", "meta is not understood"),
    "negative": (meta_of(2, -3), "meta is not understood"),
    "octal": (meta_of("02", 3), "meta is not understood"),
    "type": (meta_of(2, 3, kind="kFloat12"), "meta has the data_type 'kFloat12'; expected one of kFloat, kDouble"),
    "number": (meta_of(2, 3, kind="2"), "meta has the data_type '2'"),
    "other type": (meta_of(2, 3, kind="kDouble"), r"out has 24 bytes, but 48 are expected of the shape \[2, 3\] of F64"),
    "larger": (meta_of(2, 4), r"out has 24 bytes, but 32"),
    "smaller": (meta_of(2, 2), r"out has 24 bytes, but 16"),
    "impossible": (meta_of(1 << 60, 1 << 60), "impossible shape"),
    "impossible nothing": (meta_of(1 << 60, 0), "impossible shape"),
    "dimensions": (meta_of(*[1] * 40, 6), "impossible shape"),
    "long": (meta_of(2, 3) + " " * 5000, "meta is longer than any shape"),
}


@pytest.mark.parametrize("case", METAS)
def test_a_wrong_meta_is_named(saved, variables, case):
    meta, message = METAS[case]
    for folder, name in ((saved / "tensor_2", "weight"), (variables / "bert-a.w", "bert-a.w")):
        (folder / "meta").write_text(meta, encoding="latin-1")
        with pytest.raises(CheckpointError, match=rf"{folder}: '{name}': .*{message}"):
            open_checkpoint(folder.parent)
        (folder / "meta").write_text(meta_of(2, 3))


def test_missing_and_short_files(saved, tmp_path):
    out, meta = saved / "tensor_2" / "out", saved / "tensor_2" / "meta"
    tensor = open_checkpoint(saved).tensors["weight"]
    out.write_bytes(bytes(23))
    with pytest.raises(CheckpointError, match="tensor_2: 'weight': out has 23 bytes, but 24"):
        open_checkpoint(saved)
    with pytest.raises(CheckpointError, match="tensor_2: 'weight': out became shorter"):
        tensor.load()
    out.unlink()
    for action in (lambda: open_checkpoint(saved), tensor.load):
        with pytest.raises(CheckpointError, match="tensor_2: 'weight': out (is missing or )?cannot be read: No such file"):
            action()
    out.mkdir()
    with pytest.raises(CheckpointError, match="tensor_2: 'weight': out is a link, folder or device"):
        open_checkpoint(saved)
    meta.unlink()
    shutil.rmtree(saved / "tensor_2")
    with pytest.raises(CheckpointError, match="tensor_2: 'weight': out is missing"):
        open_checkpoint(saved)
    for wrong in (tmp_path / "missing", saved / "pickled_data"):
        assert not is_checkpoint(wrong)
        with pytest.raises(CheckpointError, match="is no folder"):
            open_checkpoint(wrong)
    (tmp_path / "empty").mkdir()
    assert not is_checkpoint(tmp_path / "empty") and not is_checkpoint(tmp_path / "a\0b")
    with pytest.raises(CheckpointError, match="there is no variable in this folder"):
        open_checkpoint(tmp_path / "empty")


def test_missing_and_short_files_of_variables(variables):
    folder = variables / "bert-a.w"
    (folder / "meta").unlink()
    with pytest.raises(CheckpointError, match=r"'bert-a\.w': meta is missing"):
        open_checkpoint(variables)
    (variables / "bert-a.w-m" / "meta").unlink()
    assert open_checkpoint(variables).tensors["bert-a.w"].info.shape == (6,)
    (folder / "out").write_bytes(bytes(23))
    with pytest.raises(CheckpointError, match=r"'bert-a\.w': out has 23 bytes, which is no row of float32"):
        open_checkpoint(variables)
    (folder / "out").unlink()
    with pytest.raises(CheckpointError, match=r"'bert-a\.w': out is missing"):
        open_checkpoint(variables)


def test_ten_thousand_damaged_pickles_and_metas(saved):
    generator = np.random.default_rng(0)
    originals = {saved / "pickled_data": ONEFLOW, saved / "tensor_2" / "meta": meta_of(2, 3).encode()}
    opened = 0
    for path, data in originals.items():
        for _ in range(10_000):
            path.unlink()
            path.write_bytes(mutated(generator, data))
            assert is_checkpoint(saved)
            try:
                for tensor in open_checkpoint(saved).tensors.values():
                    assert tensor.load().nbytes == tensor.info.size <= 64
                opened += 1
            except CheckpointError as error:
                assert str(error).startswith(str(saved)) and str(error).isprintable() and len(str(error)) < 1000
        path.write_bytes(data)
    assert 100 < opened < 10_000


def test_a_meta_that_takes_long_does_not(saved):
    long = " " * 4000
    for meta in (long, "shape" + long, "shape {" + long, "shape {" + " dim: 1" * 580 + " !", meta_of(*"1" * 400)):
        (saved / "tensor_2" / "meta").write_text(meta)
        start = time.perf_counter()
        with pytest.raises(CheckpointError):
            open_checkpoint(saved)
        assert time.perf_counter() - start < 1


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
infos = [TensorInfo(str(index), (10, 1 << 20), "F32") for index in range(5)]
(folder / "a").mkdir(), (folder / "b").mkdir()
write(folder / "a", [Tensor(info, lambda: np.ones((10, 1 << 20), np.float32)) for info in infos])
write(folder / "b", list(oneflow_folder.open_checkpoint(folder / "a").tensors.values()))
print(peak() - before)
"""
    command = [sys.executable, "-c", program, tmp_path, kind]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 30 < int(result.stdout) < 40 + 60


# ---------------------------------------------------------------------------------------------- OneFlow itself

def make_module(seed):
    import oneflow as flow

    flow.manual_seed(seed)

    class Module(flow.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = flow.nn.Linear(3, 2)
            self.norm = flow.nn.BatchNorm1d(2)
            self.register_buffer("ids", flow.arange(4) + seed)
            self.scale = flow.nn.Parameter(flow.tensor(1.5 + seed))

        def forward(self, x):
            return self.norm(self.dense(x)) * self.scale

    return Module()


@pytest.mark.only_backend("oneflow")
def test_a_state_dict_that_oneflow_saves_is_read_and_its_copy_loaded(tmp_path):
    import oneflow as flow

    module = make_module(1)
    flow.save(module.state_dict(), str(tmp_path / "saved"))
    checkpoint = open_checkpoint(tmp_path / "saved")
    state = module.state_dict()
    assert list(checkpoint.tensors) == list(state) and "scale" in state and checkpoint.skipped == {}
    for name, tensor in state.items():
        assert_same_bits(checkpoint.tensors[name].load(), tensor.numpy())
    (tmp_path / "copy").mkdir()
    write(tmp_path / "copy", list(checkpoint.tensors.values()))
    other = make_module(2)
    loaded = flow.load(str(tmp_path / "copy"))
    assert list(loaded) == list(state) and loaded["dense.weight"].dtype == flow.float32
    other.load_state_dict(loaded, strict=True)
    for name, tensor in other.state_dict().items():
        assert_same_bits(tensor.numpy(), state[name].numpy())


@pytest.mark.only_backend("oneflow")
def test_a_dictionary_with_a_state_dict_that_oneflow_saves_is_read(tmp_path):
    import oneflow as flow

    module = make_module(1)
    optimizer = flow.optim.Adam(module.parameters(), lr=0.1)
    module(flow.ones(4, 3)).sum().backward()
    optimizer.step()
    whole = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "best": 0.5, "scores": [flow.ones(2)]}
    flow.save(whole, str(tmp_path / "saved"))
    checkpoint = open_checkpoint(tmp_path / "saved")
    assert list(checkpoint.tensors) == list(module.state_dict()) and "'model'" in checkpoint.notes[1]
    assert list(checkpoint.skipped) == ["optimizer", "epoch", "best", "scores"]
    for name, tensor in module.state_dict().items():
        assert_same_bits(checkpoint.tensors[name].load(), tensor.numpy())


@pytest.mark.only_backend("oneflow")
def test_every_type_that_oneflow_saves_is_read(tmp_path):
    import oneflow as flow

    arrays = arrays_of_all_types()
    flow.save({name: flow.tensor(array) for name, array in arrays.items()}, str(tmp_path / "saved"))
    checkpoint = open_checkpoint(tmp_path / "saved")
    assert list(checkpoint.tensors) == list(arrays)
    for name, array in arrays.items():
        assert_same_bits(checkpoint.tensors[name].load(), array)
    values = np.array([0, 1.5, -2, 3e38], "<f4").astype(DTYPES["BF16"]).astype("<f4")
    flow.save({"a": flow.tensor(values).to(flow.bfloat16)}, str(tmp_path / "bfloat16"))
    assert_same_bits(open_checkpoint(tmp_path / "bfloat16").tensors["a"].load(), values)


@pytest.mark.only_backend("oneflow")
def test_oneflow_loads_every_type(tmp_path):
    import oneflow as flow

    arrays = arrays_of_all_types()
    write(tmp_path, tensors_of(arrays))
    loaded = flow.load(str(tmp_path))
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert isinstance(loaded[name], flow.Tensor)
        assert_same_bits(loaded[name].numpy(), array)


@pytest.mark.only_backend("oneflow")
def test_oneflow_loads_variables_with_shapes(tmp_path):
    import oneflow as flow

    arrays = {name: array for name, array in arrays_of_all_types().items() if "/" not in name}
    oneflow_legacy.write(tmp_path, tensors_of(arrays))
    loaded = flow.load(str(tmp_path))
    assert sorted(loaded) == sorted(arrays)
    for name, array in arrays.items():
        assert_same_bits(loaded[name].numpy(), array)
        assert_same_bits(open_checkpoint(tmp_path).tensors[name].load(), array)


@pytest.mark.only_backend("oneflow")
def test_variables_without_shapes_are_not_for_oneflow_of_today(tmp_path):
    import oneflow as flow

    oneflow_legacy.write(tmp_path, tensors_of({"a": np.ones(3, "<f4")}), meta=False)
    with pytest.raises(AssertionError):
        flow.load(str(tmp_path))
    (tmp_path / "snapshot_done").touch()
    with pytest.raises(RuntimeError, match="does not have meta info"):
        flow.load(str(tmp_path))


def test_files_are_not_kept_open(tmp_path):
    write(tmp_path, tensors_of({str(index): np.ones(2, "<f4") for index in range(50)}))
    before = len(list(Path("/proc/self/fd").iterdir()))
    tensors = open_checkpoint(tmp_path).tensors
    assert all(tensor.load().sum() == 2 for tensor in tensors.values())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
