"""Exported ONNX models through ONNX Runtime: token batches in, the graph's outputs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .. import threads
from ..errors import CheckpointError
from ..extras import require


def load_session(
    path: Path, outputs: Sequence[str] | None = None
) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """`infer(batch) -> outputs` of an ONNX file on the CPU, all or those of these names, with `core.threads`' number of threads.
    Raises BackendError without ONNX Runtime, and CheckpointError for a file that it does not take."""
    require("onnx", path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.number()
    options.log_severity_level = 3
    # Threads that wait sleep, as everywhere here (core.threads).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common type that it exports
        raise CheckpointError(f"{path}: ONNX Runtime does not take it: {' '.join(str(error).split())[:300]}") from error
    wanted = [port.name for port in session.get_inputs()]
    names = None if outputs is None else list(outputs)
    if lacking := sorted({*(names or ())} - {port.name for port in session.get_outputs()}):
        raise CheckpointError(f"{path}: has no output {lacking[0]}")

    def infer(batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        return session.run(names, {name: batch[name] for name in wanted})

    return infer
