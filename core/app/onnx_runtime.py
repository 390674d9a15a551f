"""Exported ONNX models through ONNX Runtime: token batches in, logits out, as an engine's `infer` gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import threads
from ..errors import CheckpointError
from ..extras import require


def load_session(path: Path) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """`infer(batch) -> [logits (batch, outputs), ...]` of an ONNX file on the CPU, with `core.threads`' number of threads. Raises
    BackendError without ONNX Runtime, and CheckpointError for a file that it does not take."""
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

    def infer(batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        return session.run(None, {name: batch[name] for name in wanted})

    return infer
