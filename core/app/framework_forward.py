"""A framework's own word on a checkpoint, in a process of its own: it reads the file and computes every output.

    python -m crossdistil.core.app.framework_forward < request.json

The request has `framework`, `path`, `out` (an .npz file to write: name of an output -> array), `options` (of reading) and
`plugins` (with families of models).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np

from ...backends.registry import load_engine
from ...converters.canonical import ReadOptions, read_canonical
from ...converters.formats import open_checkpoint
from ...converters.frameworks import MODULES, read_with
from ...converters.tensorflow_ops import load_ops
from ...converters.tensors import Checkpoint, Tensor, dtype_name
from ...converters.verify import make_outputs, sample_batch, wanted_outputs
from ..engine import EngineOptions
from ..errors import MESSAGE_PREFIX, CheckpointError, CrossdistilError
from ..json_files import parse_json
from ..plugin_files import load_the_same


def framework_outputs(framework: str, path: Path, options: ReadOptions) -> dict[str, np.ndarray]:
    """All outputs for the sample batch of what the framework read."""
    checkpoint = read_canonical(path, options, _as_read_by(framework, path))
    parameters = {
        name: array.astype(np.float32)
        for name, tensor in checkpoint.tensors.items()
        if (array := tensor.load()).dtype.kind == "f"
    }
    compute, batch = make_outputs(checkpoint), sample_batch(checkpoint)
    if framework == "tf":
        ops = load_ops()
        tensors = {name: ops.constant(array) for name, array in parameters.items()}
        values = [value.numpy() for value in compute(ops, tensors, batch)]
    else:
        engine = load_engine(MODULES[framework], EngineOptions("cpu"))
        values = engine.infer(compute, parameters)(batch)
    return dict(zip(wanted_outputs(checkpoint), values))


def _as_read_by(framework: str, path: Path) -> Checkpoint:
    """Our view of the checkpoint, with the framework's arrays in place of what we read."""
    ours = open_checkpoint(path)
    arrays = read_with(framework, ours.path, ours.tensors)
    lost = [name for name in ours.tensors if name not in arrays]
    if lost:
        raise CheckpointError(f"{ours.path}: {framework} does not find {lost[0]}")
    tensors = {}
    for name, tensor in ours.tensors.items():
        array = arrays[name]
        if array.shape != tensor.info.shape:
            raise CheckpointError(f"{ours.path}: {framework} reads {name} as {array.shape}, expected {tensor.info.shape}")
        info = dataclasses.replace(tensor.info, dtype=dtype_name(array.dtype))
        tensors[name] = Tensor(info, lambda array=array: array)
    return dataclasses.replace(ours, tensors=tensors)


def main() -> int:
    """Serve the request of standard input."""
    request = parse_json(sys.stdin.buffer.read(), "standard input")
    options = ReadOptions.from_json(request["options"])
    try:
        load_the_same(request["plugins"])
        outputs = framework_outputs(request["framework"], Path(request["path"]), options)
    except CrossdistilError as error:
        print(MESSAGE_PREFIX + str(error), file=sys.stderr)
        return 2
    np.savez(request["out"], **{name.replace("/", "|"): value for name, value in outputs.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
