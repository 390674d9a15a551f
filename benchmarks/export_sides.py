"""The ways to run a model that `exports.py` compares: each export, our own engine, and what others have."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.backends.registry import load_engine
from crossdistil.core import threads
from crossdistil.core.app.export_targets import TARGETS
from crossdistil.core.app.exported import REPORT
from crossdistil.core.app.exporting import ExportOptions, GateError, export
from crossdistil.core.app.gates import MAX_DROP, MIN_AGREEMENT
from crossdistil.core.checkpoint import WEIGHTS, Model
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.json_files import read_object
from crossdistil.core.model_answers import logits_function
from crossdistil.core.model_inputs import inputs_of

Batch = dict[str, np.ndarray]
BATCHES = (1, 32)
ANY = (100.0, 0.0)  # limits of score and answers that refuse nothing
TRANSFORMERS, COMPILED, TORCH_EXPORT = "transformers, SDPA", "transformers, torch.compile", "torch.onnx.export, ONNX Runtime"
OURS = "crossdistil, torch"


@dataclass(frozen=True)
class Settings:
    """What is compared, and how often."""

    data: Path
    exports: Path
    rounds: int
    texts: int
    without: tuple[str, ...]


@dataclass
class Side:
    """One way to run a model."""

    name: str
    bytes: int
    infer: Callable[[Any], np.ndarray]
    """Of a prepared batch: the logits."""
    prepare: Callable[[Batch], Any] = lambda batch: batch
    refused: bool = False
    """Whether the gates of `crossdistil export` refuse it."""
    milliseconds: dict[int, list[float]] = field(default_factory=lambda: {size: [] for size in BATCHES})


def exported_sides(source: Path, model: Model, folder: Path, settings: Settings) -> tuple[list[Side], dict[str, str]]:
    """The exports of a model, and why others are not there."""
    sides, missing = [], {}
    for target in TARGETS.values():
        for precision in target.precisions:
            name, place = f"{target.name}, {precision}", folder / f"{target.name}-{precision}"
            if name in settings.without:
                continue
            print(f"{folder.name}: {name}", flush=True)
            try:
                if not place.exists():
                    export(source, place, ExportOptions(precision, target.name, settings.data, *ANY), lambda line: None)
                refused = is_refused(read_object(place / REPORT)["gates"])
                loaded = target.load(place / target.file, model.config)
            except GateError as error:
                missing[name] = f"refused: {str(error).partition('not exported: ')[2]}"
            except CrossdistilError as error:
                missing[name] = str(error)
            else:
                sides.append(Side(name, target.size(place), lambda batch, run=loaded: run(batch)[0], refused=refused))
    return sides, missing


def is_refused(gates: list[dict[str, Any]]) -> bool:
    """Whether answers or score are beyond the limits of `crossdistil export`, of a dev split of 400 texts and more."""
    lost = [gate["value"] > MAX_DROP for gate in gates if gate["name"].endswith("points lost")]
    return any(lost) or any(gate["value"] < MIN_AGREEMENT for gate in gates if gate["name"].startswith("same answers"))


def own_side(model: Model) -> Side:
    """Our engine, which `predict` uses."""
    engine = load_engine("torch", EngineOptions("cpu"))
    infer = engine.infer(logits_function(model.config), model.parameters)
    return Side(OURS, 4 * model.parameter_count, lambda batch: infer(batch)[0])


def rivals(model: Model, folder: Path, settings: Settings) -> list[Side]:
    """transformers, and what torch makes of it."""
    import onnxruntime
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads.number())

    def loaded():
        return AutoModelForSequenceClassification.from_pretrained(model.source, attn_implementation="sdpa").eval()

    names = list(inputs_of(model.config))

    def long(batch: Batch) -> dict[str, Any]:
        return {name: torch.from_numpy(batch[name]).long() for name in names}

    def run(network) -> Callable[[Any], np.ndarray]:
        def infer(inputs):
            with torch.inference_mode():
                return network(**inputs).logits.numpy()

        return infer

    size = (model.source / WEIGHTS).stat().st_size
    sides = [Side(TRANSFORMERS, size, run(loaded()), long)]
    if COMPILED not in settings.without:
        sides.append(Side(COMPILED, size, run(torch.compile(loaded(), dynamic=True)), long))
    path, network = folder / "torch-onnx-export.onnx", loaded()
    if not path.exists():
        network.config.return_dict = False
        example = {name: torch.ones((2, 8), dtype=torch.long) for name in names}
        sizes = {name: {0: "batch", 1: "length"} for name in names}
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network, (), path, kwargs=example, input_names=names, output_names=["logits"], opset_version=17,
                dynamic_axes={**sizes, "logits": {0: "batch"}}, dynamo=False,
            )  # fmt: skip
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads.number()
    session = onnxruntime.InferenceSession(path, chosen, providers=["CPUExecutionProvider"])
    sides.append(
        Side(
            TORCH_EXPORT,
            path.stat().st_size,
            lambda batch: session.run(None, batch)[0],
            lambda batch: {name: batch[name].astype(np.int64) for name in names},
        )
    )
    return sides
