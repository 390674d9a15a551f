"""What a model can be exported to: how each is written, and how its own runtime loads it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ... import __version__
from ...backends.registry import load_module
from ...converters.onnx_file import write_onnx
from ...converters.onnx_precision import make_recorder
from ...converters.recording_ops import record
from ..checkpoint import Model
from ..errors import CrossdistilError
from ..model_inputs import inputs_of
from ..models.architectures import Config, is_encoder
from .export_outputs import answer_names, answer_of, make_exported
from .onnx_runtime import load_session
from .openvino_runtime import load_openvino, write_openvino

Infer = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
"""`infer(batch) -> [answer]`: logits (batch, outputs) as an engine gives them, of each token (batch, length, outputs), or vectors
(batch, width)."""


@dataclass(frozen=True)
class Target:
    """A format, and the runtime that takes it."""

    name: str
    file: str
    """Of the graph, in the exported folder."""
    precisions: tuple[str, ...]
    write: Callable[..., None]
    """`write(model, path, precision, hidden)`; with `hidden`, the pooled output and all hidden states are outputs too."""
    load: Callable[[Path, Config], Infer]
    """`load(path, config)`: the graph in its runtime."""
    package: str
    """What runs it, as pip calls it."""
    backend: str | None = None
    """Whose framework writes and runs it; None is none."""
    beside: tuple[str, ...] = ()
    """Other files of the graph, where they are there."""
    calibrated: tuple[str, ...] = ()
    """Precisions for which `write` also takes texts, as batches of token ids: they show how large values become."""
    native: bool = False
    """Whether it is machine code, for the processor that it was made on."""

    def size(self, folder: Path) -> int:
        """Bytes of the graph in a folder."""
        return sum(path.stat().st_size for name in (self.file, *self.beside) if (path := folder / name).is_file())


def write_graph(model: Model, path: Path, precision: str, hidden: bool = False) -> None:
    """The ONNX graph of a model: inputs as batches have them, outputs by name, the answer first, which is what runtimes take
    that take the first."""
    graph, ops = make_recorder(precision)
    outputs = record(make_exported(model.config, hidden), model.parameters, inputs_of(model.config), graph, ops)
    labels = json.dumps(model.labels, ensure_ascii=False)
    metadata = {"crossdistil": __version__, "labels": labels, "precision": precision}
    write_onnx(path, path.stem, graph.nodes, graph.weights, graph.inputs, outputs, metadata)


def write_program(model: Model, path: Path, precision: str, hidden: bool = False) -> None:
    """The `torch.export` program of a model."""
    _write_with_torch("pt2", "write_program", model, path, hidden)


def write_package(model: Model, path: Path, precision: str, hidden: bool = False) -> None:
    """The same program, compiled."""
    _write_with_torch("aoti", "write_package", model, path, hidden)


def _write_with_torch(name: str, function: str, model: Model, path: Path, hidden: bool) -> None:
    if not is_encoder(model.config):
        raise CrossdistilError(f"--to {name}: torch.export unrolls an LSTM over one fixed length; a BiLSTM goes to onnx")
    longest, write = model.config.positions, getattr(load_module("torch", "export"), function)
    write(make_exported(model.config, hidden), model.parameters, inputs_of(model.config), longest, path)


def _answering(run: Infer, config: Config) -> Infer:
    """A runtime's outputs as an engine gives the answer."""
    return lambda batch: [answer_of(config, run(batch))]


def _load_session(path: Path, config: Config) -> Infer:
    return _answering(load_session(path, answer_names(config)), config)


def _load_openvino(path: Path, config: Config) -> Infer:
    return _answering(load_openvino(path), config)


def _load_package(path: Path, config: Config) -> Infer:
    return _answering(load_module("torch", "export").load_package(path, list(inputs_of(config))), config)


def _load_program(path: Path, config: Config) -> Infer:
    return _answering(load_module("torch", "export").load_program(path, list(inputs_of(config))), config)


def write_mindir(model: Model, path: Path, precision: str, hidden: bool = False) -> None:
    """The MINDIR graph of a model."""
    mindspore_export = load_module("mindspore", "export")
    mindspore_export.write_mindir(make_exported(model.config, hidden), model.parameters, inputs_of(model.config), path)


def _load_mindir(path: Path, config: Config) -> Infer:
    return _answering(load_module("mindspore", "export").load_mindir(path, list(inputs_of(config))), config)


def write_openvino_graph(
    model: Model, path: Path, precision: str, hidden: bool = False, texts: Sequence[dict[str, np.ndarray]] = ()
) -> None:
    """The graph of a model for OpenVINO, which reads ONNX."""
    if not is_encoder(model.config):
        # Its CPU kernels (2026.4) do not stop at the lengths that they are given: logits differ by 0.04 and more.
        raise CrossdistilError("--to openvino: its LSTM reads the padding behind a short text too; a BiLSTM goes to onnx")
    with TemporaryDirectory(prefix="crossdistil-") as folder:
        graph = Path(folder) / "model.onnx"
        write_graph(model, graph, "fp32", hidden)
        write_openvino(graph, path, precision, texts)


TARGETS = {
    target.name: target
    for target in (
        Target(
            "onnx",
            "model.onnx",
            ("fp32", "fp16", "int8"),
            write_graph,
            _load_session,
            "onnxruntime",
            beside=("model.onnx.data",),
        ),
        Target(
            "openvino",
            "openvino_model.xml",
            ("fp32", "bf16", "int8"),
            write_openvino_graph,
            _load_openvino,
            "openvino",
            beside=("openvino_model.bin",),
            calibrated=("int8",),
        ),
        Target("pt2", "model.pt2", ("fp32",), write_program, _load_program, "torch", "torch"),
        Target("aoti", "model.aoti.pt2", ("fp32",), write_package, _load_package, "torch", "torch", native=True),
        Target("mindir", "model.mindir", ("fp32",), write_mindir, _load_mindir, "mindspore", "mindspore"),
    )
}
