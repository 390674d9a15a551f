"""Runs that go on with another number of processes: parts of a run, in its folder, up to a saved state at which all stop."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from rich.console import Console
from safetensors.numpy import load_file

from crossdistil.core.app import run
from crossdistil.core.engine import Engine, EngineOptions
from crossdistil.core.events import Sinks
from crossdistil.core.objective import Objective
from crossdistil.core.shared_run import SharedRun
from crossdistil.core.world import World
from crossdistil.tests.several_cases import Case

STEPS = 12
"""Of each of two stages: three epochs. States are saved within a log window, an epoch, a stage, and between the stages."""


@dataclass(frozen=True)
class Part:
    """A part of the run in a folder of this name, from where it is to the state after step `stop`, or to the end."""

    folder: str
    stop: int | None = None
    accumulation: int = 2

    def case(self) -> Case:
        """What is trained."""
        train = {"steps": STEPS, "gradient_accumulation": self.accumulation, "dropout": 0.3, "learning_rate": 3e-3}
        return Case("minilm", train=train | {"save_every": 5, "log_every": 4, "keep": "best"})


def go_on(part: Part, files: Path, engine: Engine, world: World) -> dict[str, np.ndarray]:
    """Train a part. Returns `rows` (steps,), a number for the texts that all processes together took in each of its steps, and
    after the end the `parameters/` of the student."""
    folder, taken = files / "runs" / part.folder, []
    save, prepare = SharedRun.save_state, Objective.prepare

    def stopping(shared, state):
        save(shared, state)
        if state.step == part.stop:
            raise KeyboardInterrupt

    def noting(objective, *arguments):
        own = prepare(objective, *arguments)
        taken.append([text for batch in own for text in _texts(batch)])
        return own

    resume = world.first(b"\1" if folder.exists() else b"\0") == b"\1"
    options = run.RunOptions(engine.name, EngineOptions("cpu"), folder, resume)
    recipe = part.case().load(files, engine.length_step)
    with mock.patch.object(SharedRun, "save_state", stopping), mock.patch.object(Objective, "prepare", noting):
        try:
            run._execute(recipe, "recipe", options, Console(quiet=True), engine, world, mock.Mock(), Sinks([]))
        except KeyboardInterrupt:
            assert part.stop is not None
    shares = [json.loads(data) for data in world.exchange(json.dumps(taken).encode())]
    steps = [sorted(text for share in step for text in share) for step in zip(*shares, strict=True)]
    found = {"rows": np.array([zlib.crc32(json.dumps(step).encode()) for step in steps])}
    if part.stop is None:
        found |= {f"parameters/{name}": array for name, array in load_file(folder / "student" / "model.safetensors").items()}
    return found


def _texts(batch: dict[str, np.ndarray]) -> list[list[int]]:
    """The tokens of each text of a batch."""
    real = zip(batch["input_ids"], batch["attention_mask"], batch["example_mask"])
    return [ids[mask > 0].tolist() for ids, mask, example in real if example]


def logged(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl, without the speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


PATHS = {"2-1-2": 2, "1-2": 2, "4-2": 4}
"""The numbers of processes that a run has had one after the other, and its accumulation."""
WHOLE = {2: "whole in 2 parts", 4: "whole in 4 parts"}
PARTS = {
    "whole in 2 parts": Part("whole in 2 parts"),
    "whole in 4 parts": Part("whole in 4 parts", accumulation=4),
    "first of 2-1-2": Part("2-1-2", 5),
    "second of 2-1-2": Part("2-1-2", 12),
    "third of 2-1-2": Part("2-1-2"),
    "first of 1-2": Part("1-2", 17),
    "second of 1-2": Part("1-2"),
    "first of 4-2": Part("4-2", 10, accumulation=4),
    "second of 4-2": Part("4-2", accumulation=4),
}
"""By the name that `several.start` takes."""
PHASES = (
    ((2, ["first of 2-1-2"]), (4, ["first of 4-2"]), (1, [*WHOLE.values(), "first of 1-2"])),
    ((1, ["second of 2-1-2"]),),
    ((2, ["third of 2-1-2", "second of 1-2", "second of 4-2"]),),
)
"""Which number of processes does what, after all of the phase before is done."""


def end_of(path: str, found: dict[str, dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The parameters of an unbroken run and of one that went a path, by what was `found` for each part. Raises AssertionError if
    it took other texts in any step."""
    parts = [found[name] for name in PARTS if name.endswith(f" of {path}")]
    whole, last = found[WHOLE[PATHS[path]]], parts[-1]
    assert len(parts) == path.count("-") + 1 and all(len(part["rows"]) for part in parts)
    assert np.concatenate([part["rows"] for part in parts]).tolist() == whole["rows"].tolist()
    expected, end = ({name: array for name, array in each.items() if name != "rows"} for each in (whole, last))
    assert expected.keys() == end.keys() and len(expected) > 20
    return expected, end
