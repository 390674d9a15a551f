"""OneFlow's folders for the tests: as flow.save wrote them, variables with their shapes, and pickles made by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from crossdistil.converters import oneflow_legacy
from crossdistil.converters.tensors import DTYPES
from crossdistil.tests.checkpoint_files import tensors_of

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
    """A new folder of one tensor."""
    folder.mkdir(parents=True)
    (folder / "out").write_bytes(content)
    (folder / "meta").write_text(meta)


def meta_of(*dims, kind="kFloat"):
    """The file `meta` of a tensor of this shape."""
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


# ---------------------------------------------------------------------------------------------- the pickles of flow.save


def text(value):
    """A text, pickled."""
    return pickle.BINUNICODE + len(value.encode()).to_bytes(4, "little") + value.encode()


def tensor_at(path, module="oneflow", name="Tensor"):
    """A tensor whose files are in the folder `path`, pickled."""
    return text(module) + text(name) + b"\x93)\x81}" + text("path") + text(path) + b"sb"


def dictionary(**entries):
    """A dictionary of pickled values, pickled."""
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def flow_saved(data):
    """The `pickled_data` of a pickled value."""
    return b"\x80\x04" + dictionary(protocol_version=b"K\x01", data=data) + b"."
