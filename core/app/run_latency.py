"""How fast the student of a run answers, beside its teachers: measured in about two seconds where the run ends, or later by
`crossdistil report`, and kept as `latency.json` in the run folder.

A request is one text of dev, or one window of those that are read in such, and its time that from token ids to the answer, on
the device and with the threads of the run: what `crossdistil latency` measures of whole folders in processes of their own, and as
JSON it is written in the same way. The texts are spread over the lengths of dev. Where each shape costs a compilation, all are of
the most frequent one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Model
from ..data.batches import length_buckets
from ..data.token_table import TokenTable
from ..engine import Engine, unheard
from ..errors import CrossdistilError, RunFolderError
from ..files import write_text
from ..model_answers import logits_function
from ..run_files import LATENCY, read_remade
from ..shown import counted
from ..threads import processors
from .latency import LatencyOptions, in_turns, result_of
from .timed_model import Case, TimedModel, known

STUDENT_NAME, TEACHER_NAME = "student", "teacher"
"""What the models are called in the file; of several teachers, each is `teacher/NAME`."""
_SECONDS, _ROUNDS = 1.5, 5
_TEXTS = 64
_CASE = Case(1)


@dataclass(frozen=True)
class Side:
    """A model that is measured."""

    folder: Path
    model: Model
    tokens: TokenTable
    """The texts of dev as it takes them."""
    max_length: int


def measured(sides: Mapping[str, Side], engine: Engine) -> dict[str, Any]:
    """The content of latency.json: of these models, which take turns, the first being the reference. Raises CrossdistilError."""
    if len({len(side.tokens.lengths) for side in sides.values()}) > 1:
        raise CrossdistilError("the models read the texts of dev in other windows")
    buckets = {name: length_buckets(side.max_length, engine.length_step) for name, side in sides.items()}
    rows = _rows(sides, buckets if engine.length_step is None else None)
    models = {name: _timed(side, engine, buckets[name], rows) for name, side in sides.items()}
    each = sum(_first_request(model) for model in models.values())
    rows = _spread(rows, int(_SECONDS / ((_ROUNDS + 1) * max(each, 1e-9))))
    for model in models.values():
        model.rows = rows
    options = LatencyOptions((_CASE,), engine.threads, _ROUNDS, 1, _SECONDS)
    seconds = in_turns(models, options, unheard)
    about = {name: {"folder": str(side.folder)} | models[name].about for name, side in sides.items()}
    found = result_of(about, seconds, options, len(rows), time.perf_counter.__name__)
    found["machine"] |= {"load": round(os.getloadavg()[0], 1), "processors": processors()}
    return found


def _timed(side: Side, engine: Engine, buckets: tuple[int, ...], rows: np.ndarray) -> TimedModel:
    infer = engine.infer(logits_function(side.model.config), side.model.parameters)
    about = known(side.model, engine, side.tokens.lengths[rows])
    return TimedModel(side.model.config, infer, time.perf_counter, buckets, about, side.tokens, rows)


def _rows(sides: Mapping[str, Side], buckets: dict[str, tuple[int, ...]] | None) -> np.ndarray:
    """The texts, the shortest first, that could be asked for; with `buckets`, those that all models pad to one length each."""
    rows = np.argsort(next(iter(sides.values())).tokens.lengths, kind="stable")
    for name, side in sides.items() if buckets is not None else ():
        places = np.searchsorted(buckets[name], side.tokens.lengths[rows])
        rows = rows[places == np.bincount(places).argmax()]
    return rows


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, at least one and at most `_TEXTS`, evenly from the shortest to the longest."""
    count = min(max(count, 1), _TEXTS, len(rows))
    return rows[((np.arange(count) + 0.5) * len(rows) / count).astype(int)]


def _first_request(model: TimedModel) -> float:
    """The seconds of a text of the middle, asked once before: the first one of a process is slower."""
    one = dataclasses.replace(model, rows=_spread(np.asarray(model.rows), 1))
    one.turn(_CASE)
    return one.turn(_CASE)[0]


def write_latency(folder: Path, found: dict[str, Any]) -> None:
    """Keep a measurement in a run folder."""
    write_text(folder / LATENCY, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class RunLatency:
    """What the run folder says of it."""

    milliseconds: dict[str, float]
    """Of each model the median of all requests."""
    requests: int
    """Of each model."""
    mean_tokens: float
    """Of a request of the student."""
    conditions: str
    """Processor, threads, framework, device, precision and batch, for people: what two figures must have alike."""
    date: str
    busy: str = ""
    """That the machine had more to do than it has processors, so that the times are longer than alone."""


def read_latency(folder: Path) -> RunLatency | None:
    """The latencies of a run; None where they were not measured. Raises RunFolderError for a file that is damaged."""
    path = folder / LATENCY
    remedy = f"remove it, and crossdistil report {folder} measures again"
    found = read_remade(path, remedy)
    if found is None:
        return None
    try:
        own = found["models"][STUDENT_NAME]
        models = {str(name): model[_CASE.name]["request_milliseconds"] for name, model in found["models"].items()}
        milliseconds = {name: float(times["p50"]) for name, times in models.items()}
        requests, tokens, date = int(own[_CASE.name]["requests"]), float(own["mean_tokens"]), str(found["date"])
        return RunLatency(milliseconds, requests, tokens, _conditions(found, own), date, _busy(found["machine"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{path}: is no measurement of a run's latency; {remedy}") from error


def _busy(machine: dict[str, Any]) -> str:
    load, here = float(machine.get("load", 0)), int(machine.get("processors", 1))
    return f"the machine was busy (load {load:.1f}, {counted(here, 'processor')})" if load > here else ""


def _conditions(found: dict[str, Any], own: dict[str, Any]) -> str:
    machine, versions, device = found["machine"], found["versions"], str(own["device"])
    processor = machine["cpu"] if device == "cpu" else versions.get("gpu", device)
    threads = int(machine["threads"])
    framework = f"{own['runs_in']} {versions.get(own['runs_in'], '')}".strip()
    return f"{processor}, {threads} thread{'s' * (threads != 1)}, {framework} on {device}, {own['precision']}, batch 1"
