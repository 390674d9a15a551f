"""OpenVINO: the recorded ONNX graph as its own format, in float32, for bfloat16 kernels, or with NNCF's 8-bit integers.

What the file is to be computed in travels in it: on processors that have bfloat16, OpenVINO takes that by itself for a float32
model, and its answers would be others than those that were judged.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from .. import threads
from ..errors import BackendError, CheckpointError, CrossdistilError
from ..extras import require

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision -> what is not in 8 bits is computed in."""
_PLACE = ["crossdistil", "precision"]


def write_openvino(graph: Path, path: Path, precision: str, texts: Sequence[dict[str, np.ndarray]] = ()) -> None:
    """Write the ONNX file `graph` as OpenVINO's `path` (.xml, with its weights in the .bin beside it); int8 is calibrated with
    `texts`, batches of token ids. Raises BackendError where OpenVINO, NNCF or the processor lacks what is needed."""
    openvino = _module("openvino")
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise BackendError("--precision bf16: this processor computes nothing in bfloat16, so it could not be judged here")
    model = core.read_model(str(graph))
    if precision == "int8":
        os.environ["NNCF_CI"] = "1"  # else it reports its use to its makers
        nncf = _module("nncf")
        nncf.set_log_level(40)
        names = [name for port in model.inputs for name in port.names]
        inputs = [{name: batch[name] for name in names} for batch in texts]
        with contextlib.redirect_stdout(io.StringIO()), _same_signal_stack():  # its bars
            model = nncf.quantize(model, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs))
    model.set_rt_info(precision, _PLACE)
    openvino.save_model(model, str(path), compress_to_fp16=False)


def load_openvino(path: Path) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """`infer(batch) -> outputs` of what `write_openvino` has written, on the CPU, with `core.threads`'
    number of threads. Raises BackendError without OpenVINO, and CheckpointError for a file that it does not take."""
    openvino = _module("openvino")
    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        precision = model.get_rt_info(_PLACE).astype(str)
        hint = _HINTS.get(precision)
        if hint is None:
            raise CheckpointError(f"{path}: its precision is {precision[:40]}, expected one of {', '.join(_HINTS)}")
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads.number(),
        }
        with _same_signal_stack():
            compiled = core.compile_model(model, "CPU", settings)
    except CrossdistilError:
        raise
    except Exception as error:  # its errors have no common type
        raise CheckpointError(f"{path}: OpenVINO does not take it: {' '.join(str(error).split())[:300]}") from error
    request = compiled.create_infer_request()
    names = [name for port in compiled.inputs for name in port.names]

    def infer(batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        found = request.infer({name: batch[name] for name in names}, share_inputs=True)
        return [found[port].copy() for port in compiled.outputs]  # the next request writes into the same memory

    return infer


class _SignalStack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextlib.contextmanager
def _same_signal_stack() -> Iterator[None]:
    """Keeps the memory that this thread handles signals on. What OpenVINO compiles first puts its own there and frees it later;
    Python handles signals there, so that Ctrl-C would then end the process as a fault of memory."""
    if sys.platform != "linux":
        yield
        return
    library, before = ctypes.CDLL(None), _SignalStack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)


def _module(name: str) -> ModuleType:
    require("openvino", "--to openvino", name)
    return importlib.import_module(name)
