"""A model as a `torch.export` program (.pt2): a graph without Python, dynamic in batch and length, for PyTorch 2.6 and later; or
compiled by AOTInductor to machine code of this processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.errors import BackendError
from ...core.models.encoder import Forward
from .ops import TorchOps

_EXAMPLE = (2, 8)  # of no consequence, but 0 and 1 would be taken for fixed


class _Program(torch.nn.Module):
    """A forward pass with its parameters, over inputs in the order of `names`."""

    def __init__(self, forward: Forward, parameters: Mapping[str, np.ndarray], names: Sequence[str]):
        super().__init__()
        self._forward, self._names, self._ops = forward, tuple(names), TorchOps(torch.device("cpu"))
        self._places = {name: name.replace(".", "__") for name in parameters}
        for name, array in parameters.items():
            self.register_buffer(self._places[name], torch.tensor(np.asarray(array, np.float32)))

    def forward(self, *inputs):
        params = {name: getattr(self, place) for name, place in self._places.items()}
        return self._forward(self._ops, params, dict(zip(self._names, inputs, strict=True)))


def write_program(
    forward: Forward,
    parameters: Mapping[str, np.ndarray],
    inputs: Mapping[str, tuple[np.dtype, Sequence[str]]],
    longest: int,
    path: Path,
) -> None:
    """Export `forward(ops, params, batch) -> {name: tensor}` over inputs of those types and named sizes, of texts of up to
    `longest` tokens, and write it to `path`. The program takes the inputs in that order and gives the outputs by name."""
    torch.export.save(_exported(forward, parameters, inputs, longest), path)


def write_package(
    forward: Forward,
    parameters: Mapping[str, np.ndarray],
    inputs: Mapping[str, tuple[np.dtype, Sequence[str]]],
    longest: int,
    path: Path,
) -> None:
    """The same, compiled to machine code by a C++ compiler; `path` ends in .pt2. Raises BackendError where that fails."""
    program = _exported(forward, parameters, inputs, longest)
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # of the compiler's many: that there is none, or what it says
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"--to aoti: PyTorch {torch.__version__} could not compile it: {reason}") from error


def _exported(forward, parameters, inputs, longest: int) -> torch.export.ExportedProgram:
    sizes = {"batch": torch.export.Dim("batch", min=1), "length": torch.export.Dim("length", min=1, max=longest)}
    examples = tuple(torch.ones(_EXAMPLE, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype) for dtype, _ in inputs.values())
    shapes = tuple({axis: sizes[size] for axis, size in enumerate(names)} for _, names in inputs.values())
    program = _Program(forward, parameters, list(inputs)).eval()
    with torch.no_grad():
        return torch.export.export(program, examples, dynamic_shapes=(shapes,), strict=False)


def load_program(path: Path, names: Sequence[str]) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """`infer(batch) -> outputs` of a program that `write_program` has written, whose inputs have these names."""
    return _infer(torch.export.load(path).module(), names)


def load_package(path: Path, names: Sequence[str]) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """The same of what `write_package` has written."""
    return _infer(torch._inductor.aoti_load_package(str(path)), names)


def _infer(program, names: Sequence[str]) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    def infer(batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            made = program(*(torch.from_numpy(batch[name]) for name in names))
        return [output.numpy() for output in made.values()]

    return infer
