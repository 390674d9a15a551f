"""What the tests of the teacher cache share: a teacher, its rows and its outputs, computed by the NumPy reference; and an
engine of that reference, since what a cache holds, and when there is one, needs no framework. As a program it writes a
cache, so that tests can kill it."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from crossdistil.core import teacher_writing
from crossdistil.core.app.teaching import Teaching
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.data.batches import evaluation_rows
from crossdistil.core.data.row_batches import RowBatches
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.models.architectures import make_forward
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.teacher_cache import TeacherCache
from crossdistil.core.teacher_identity import CacheKey, model_digest
from crossdistil.core.teacher_writing import write_outputs
from crossdistil.tests import tiny

NAMES = ("first/1", "hidden/0", "hidden/2", "keys/1", "logits", "pooled", "queries/2", "scores/1", "scores/2", "values/2")
"""Every kind of output."""
ROWS, BATCH, LENGTH = 44, 8, 16
BATCHES = -(-ROWS // BATCH)


class ReferenceEngine:
    """As much of an engine as teaching needs, in float64."""

    name, device, precision, length_step = "reference", "cpu", "fp32", 8

    def load_frozen(self, parameters):
        return dict(parameters)

    def infer(self, function, parameters):
        def run(batch):
            return [np.asarray(array, np.float32) for array in function(ReferenceOps(), parameters, batch)]

        return run


def rows_of(folder: Path):
    """Sentences as a model's tokenizer cuts them."""
    return load_tokenizer(folder).encode_pairs(tiny.sentences(ROWS, 0)[0], None, LENGTH)


def key_of(model: Model, table, names=NAMES, precision="fp32") -> CacheKey:
    """What identifies a cache, made without an engine."""
    return CacheKey(model_digest(model), table.digest, names, precision, "fp32")


def cache_at(folder: Path, model_folder: Path, names=NAMES, precision="fp32") -> TeacherCache:
    """A cache of a teacher, which may not be there yet."""
    model, table = load_model(model_folder), rows_of(model_folder)
    return TeacherCache(folder, key_of(model, table, names, precision), model, table.lengths)


def plan_of(table) -> np.ndarray:
    """The rows of each batch."""
    return evaluation_rows(table, BATCH)


def outputs_of(model: Model, table, names=NAMES, engine=None):
    """`f(rows)`: the outputs of a batch of rows, as `TeacherCache.write` takes it."""
    forward = make_forward(model.config.without_dropout(), frozenset(names))

    def function(ops, params, batch):
        made = forward(ops, params, batch)
        return [made[name] for name in names]

    infer, batches = (engine or ReferenceEngine()).infer(function, model.parameters), RowBatches(table, None, (LENGTH,))
    return lambda rows: infer(batches.batch(rows))


def write(cache: TeacherCache, model_folder: Path, each=lambda number: None, **processes) -> list[int]:
    """Fill a cache by the reference; `each(number)` is called before a batch. Returns the batches that were computed."""
    table, computed = rows_of(model_folder), []
    model, plan = load_model(model_folder), plan_of(table)
    numbers = {row: number for number, rows in enumerate(plan) for row in rows if row >= 0}

    def computing(names):
        compute = outputs_of(model, table, names)

        def outputs(rows):
            number = numbers[rows[0]]
            each(number)
            computed.append(number)
            return compute(rows)

        return outputs

    write_outputs(cache, plan, computing, lambda done, total: None, **processes)
    return computed


def content(folder: Path) -> dict[str, bytes]:
    """The files of a cache."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".bin", ".sums", ".json")}


def marked(folder) -> list[int]:
    """The batches that the records of a cache call done, each the same."""
    [record] = {path.read_bytes() for path in folder.glob("*.progress")}
    assert len(record) == hashlib.sha256().digest_size + BATCHES
    return [number for number, byte in enumerate(record[-BATCHES:]) if byte]


def teach(tree: dict, stage: int = 0, engine=None):
    """(the stage as a run gets it, what was printed) for a recipe as plain data."""
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    text = io.StringIO()
    teaching = Teaching(job, engine or ReferenceEngine(), Console(file=text, width=1000))
    return teaching.stage(stage, False), text.getvalue()


def main(folder: str, model_folder: str, kill_at: int) -> None:
    """Write a cache, saving after each batch; die at batch `kill_at` unless it is negative. Prints what was computed."""
    teacher_writing._SAVE_SECONDS = 0.0

    def each(number):
        time.sleep(0.02)
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    cache = cache_at(Path(folder), Path(model_folder))
    try:
        print(*write(cache, Path(model_folder), each))
        cache.open()
    except CrossdistilError as error:
        sys.exit(f"error: {error}")


def whole_at(folder: Path, model: Path) -> TeacherCache:
    """A cache that was written without an interruption."""
    cache = cache_at(folder, model)
    assert write(cache, model) == list(range(BATCHES))
    return cache


def copied(cache: TeacherCache, folder: Path, model: Path) -> TeacherCache:
    """Its files once more, to be damaged."""
    folder.mkdir()
    for name, data in content(cache.folder).items():
        (folder / name).write_bytes(data)
    return cache_at(folder, model)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
