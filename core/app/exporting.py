"""`crossdistil export`: a finished student as a file that a runtime takes, and gates for one that answers otherwise."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..card_file import place_card
from ..checkpoint import Model
from ..checkpoint_saving import write_card
from ..checksums import write_checksums
from ..data.batches import evaluation_batches, length_buckets
from ..data.row_batches import Batch, RowBatches
from ..data.tagged_tasks import without_numbers
from ..data.task_specs import glue_task
from ..data.tasks import resolve_task
from ..data.tokenize import Tokenizer, TokenTable
from ..errors import CrossdistilError
from ..files import replace_folder
from ..metrics import is_known_metric
from ..model_card import card
from ..model_inputs import trained_length
from ..processor import instructions, processor
from ..registered import NOTHING, Registered
from ..task_data import TaskData, load_data
from ..task_section import TaskSection, loaded_task_section, with_folder
from ..teacher_identity import model_digest
from .export_targets import TARGETS, Infer, Target
from .exported import REPORT
from .finished_model import load_user_model
from .gates import Gate, numeric_gates, task_gates

_LATENCY_TEXTS, _TURNS = 64, 3
_CALIBRATION_TEXTS = 300
_JUDGED_ON_DEV = ("int8", "bf16")
_STS_B = {"name": "sts-b", "kind": "embeddings"}
"""What models of sentence-transformers, which say nothing of their training, are scored on."""


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported."""

    precision: str = "fp32"
    to: str = "onnx"
    data: Path | None = None
    """The task's folder, with a dev split to compare on."""
    max_drop: float | None = None
    min_agreement: float | None = None
    """None is the usual limit (`gates`)."""
    hidden: bool = False
    """Also give the pooled output and all hidden states."""
    overwrite: bool = False
    registered: Registered = NOTHING
    """What plugins have registered, for a task or metrics that are theirs."""


class GateError(CrossdistilError):
    """The exported model does not compute what the student computes."""

    def __init__(self, message: str, report: dict[str, Any]):
        super().__init__(message)
        self.report = report


def export(source: Path, destination: Path, options: ExportOptions, tell: Callable[[str], None]) -> dict[str, Any]:
    """Write the model in `source` into the folder `destination`, with its labels and tokenizer; returns the report that is
    written beside it. Raises GateError, nothing being written, if it falls through a gate."""
    if destination.exists() and not options.overwrite:
        raise CrossdistilError(f"{destination}: is there already; --overwrite replaces it")
    target = TARGETS[options.to]
    if options.precision not in target.precisions:
        raise CrossdistilError(f"--precision {options.precision}: {target.name} has {', '.join(target.precisions)}")
    model, tokenizer = load_user_model(source, "export", tell)
    if options.precision in _JUDGED_ON_DEV and options.data is None:
        needed = "needs --data, the task's folder: what it costs is seen on its dev split"
        raise CrossdistilError(f"--precision {options.precision}: {needed}")
    calibrated = options.precision in target.calibrated
    data = None if options.data is None else _task_data(source, model, tokenizer, options, calibrated)
    with replace_folder(destination) as folder:
        texts = (_calibration(data, tell),) if calibrated else ()
        target.write(model, folder / target.file, options.precision, options.hidden, *texts)
        write_card(model, folder, tokenizer, model_digest(model))
        infer = target.load(folder / target.file, model.config)
        reference = infer if options.precision == "fp32" else _plain(model, target)
        report = _report(model, source, options, folder)
        if target.native:
            tell(
                f"note: it is machine code for this processor ({report['processor']}), and runs where its instructions are there"
            )
        table, buckets = _texts(model, tokenizer) if data is None else (data.tokens["dev"], data.buckets)
        gates = numeric_gates(model, infer, table, buckets, options.precision)
        if data is not None and (data.examples["dev"].labels is not None or model.kind.embeds):
            report["dev"], more = task_gates(data, infer, reference, options.max_drop, options.min_agreement)
            gates += more
        report["gates"] = [{"name": gate.name, "value": gate.value, "limit": gate.limit, "passed": gate.passed} for gate in gates]
        report["milliseconds"] = _latency(table, buckets, {options.precision: infer, "fp32": reference})
        for line in slower(report["milliseconds"], options.precision):
            tell(line)
        failed = [gate for gate in gates if not gate.passed]
        if failed:
            raise GateError(f"{destination}: not exported: {'; '.join(map(_why, failed))}", report)
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if (note := place_card(folder, card(model, model.parameter_count, report), destination)) is not None:
            tell(note)
        write_checksums(folder)
    return report


def _plain(model: Model, target: Target) -> Infer:
    """The same model in float32, which the others are compared with."""
    with TemporaryDirectory(prefix="crossdistil-") as folder:
        target.write(model, Path(folder) / target.file, "fp32", False)
        return target.load(Path(folder) / target.file, model.config)


def task_section(source: Path, model: Model, data: Path, registered: Registered = NOTHING) -> TaskSection:
    """The task that a model was trained on, with its files in `data`; of one that embeds texts and does not say, STS-B. Raises
    CrossdistilError where none is known."""
    about = model.about.get("task") or (_STS_B if model.kind.embeds else None)
    if not about:
        raise CrossdistilError(f"{source}: does not say what task it was trained on, so that --data cannot be read for it")
    # Without those of a plugin that is not given, which the gates' names show to be left out.
    own = (*registered.metrics, *model.kind.measures)
    metrics = [name for name in about.get("metrics") or () if is_known_metric(name) or name in own] or None
    # There need be no train file beside the one to judge by.
    named = model.labels is not None and (model.kind.per_token or glue_task(str(about.get("name", ""))) is None)
    classes = {"labels": model.labels} if named else {}
    given = {**classes, **about, "metrics": metrics, "data": data, "max_length": trained_length(model)}
    return with_folder(loaded_task_section()(**given), "--data")


def _task_data(source: Path, model: Model, tokenizer: Tokenizer, options: ExportOptions, calibrated: bool) -> TaskData:
    section = task_section(source, model, options.data, options.registered)
    spec, splits = resolve_task(section, options.registered), ("dev",)
    if "labels" not in model.about.get("task", {}):
        spec = without_numbers(spec)
    if calibrated and "train" in spec.splits and (section.data / spec.splits["train"]).exists():
        splits += ("train",)
    return load_data(spec, section, tokenizer, length_buckets(section.max_length, 1), splits)


def _calibration(data: TaskData, tell: Callable[[str], None]) -> list[Batch]:
    """Texts of train one by one, or of dev where there are no others, from the longest to the shortest."""
    split = "train" if "train" in data.tokens else "dev"
    if split == "dev":
        tell("note: there is no train split to calibrate with: it is calibrated with texts of dev, which it is judged by too")
    table = data.tokens[split]
    order = np.argsort(-np.asarray(table.lengths), kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(_CALIBRATION_TEXTS, len(order))).astype(int))]
    batches = RowBatches(table, None, data.buckets)
    return [batches.batch(rows[number : number + 1]) for number in range(len(rows))]


def _texts(model: Model, tokenizer: Tokenizer) -> tuple[TokenTable, tuple[int, ...]]:
    """Texts to compare on, and the lengths that they are padded to, where no task's are given."""
    length = trained_length(model)
    pairs = _TEXTS[::-1] if getattr(model.config, "pairs", False) or model.kind.of_spans else None
    return tokenizer.encode_pairs(_TEXTS, pairs, length), length_buckets(length, 1)


_TEXTS = [
    "",
    "a",
    "it 's a charming and often affecting journey .",
    "The quick brown fox jumps over the lazy dog, 1234567890 times; isn't that enough?",
    "这家店的面膜很好用，价格也便宜。",
    "naïve café — déjà vu 🙂🙃",
    "word " * 600,
]
"""Where no texts of the task are given: short, long, accented, Chinese, and what no vocabulary has."""


def _report(model: Model, source: Path, options: ExportOptions, folder: Path) -> dict[str, Any]:
    target = TARGETS[options.to]
    return {
        "source": source.name,
        "format": options.to,
        "precision": options.precision,
        "bytes": target.size(folder),
        "bytes_fp32": 4 * model.parameter_count,
    } | ({"processor": processor()["cpu"], "instructions": instructions()} if target.native else {})


def _latency(table: TokenTable, buckets: tuple[int, ...], sides: dict[str, Infer]) -> dict[str, dict[str, float]]:
    """Milliseconds a text of each side, medians of turns that they take one after the other: a first look, no benchmark."""
    found: dict[str, dict[str, float]] = {name: {} for name in sides}
    for size in (1, 32):
        batches = [batch for _, batch in islice(evaluation_batches(table, None, size, buckets), -(-_LATENCY_TEXTS // size))]
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(_TURNS):
            for name, infer in sides.items():
                started = time.perf_counter()
                for batch in batches:
                    infer(batch)
                times[name].append((time.perf_counter() - started) / (len(batches) * size) * 1000)
        for name, values in times.items():
            found[name][f"batch {size}"] = round(float(np.median(values)), 3)
    return found


def slower(found: dict[str, dict[str, float]], precision: str) -> list[str]:
    """A line for each batch size at which the precision costs time here instead of saving it."""
    return [
        f"note: {precision} is slower than float32 on this processor: {own:g} ms a text against {plain:g}, {size}"
        for size, own in found[precision].items()
        if own > 1.2 * (plain := found["fp32"][size])
    ]


def _why(gate: Gate) -> str:
    return f"{gate.name}: got {gate.value:.3g}, expected at {'least' if gate.at_least else 'most'} {gate.limit:.3g}"
