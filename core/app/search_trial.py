"""One trial of a search: `crossdistil run` in a process of its own, watched while it evaluates on dev."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...backends.registry import interpreter
from ..errors import MESSAGE_PREFIX, CrossdistilError
from ..processes import child_environment, ending, python_command
from ..recipe import Recipe
from ..run_files import MARKER, METRICS, RESULT
from ..run_result import read_result
from ..train_section import TrainSection

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 120.0
"""How long a run that was asked to end may save what it has."""


@dataclass(frozen=True)
class Circumstances:
    """What a trial runs on, which is no setting of the recipe."""

    backend: str
    device: str | None
    precision: str
    threads: int | None
    """Of its process; None leaves it to the environment."""


@dataclass(frozen=True)
class Ended:
    """How a trial's run ended: `complete`, `pruned`, `failed`, or `stopped`, to be continued."""

    state: str
    result: dict[str, Any] = field(default_factory=dict)
    """The content of its result.json, where it is complete."""
    error: str = ""


Watch = Callable[[int, dict[str, float], bool], bool]
"""`f(thousandths of an epoch, metrics on dev, whether it is the last evaluation)`: whether to give the trial up."""


class Evaluations:
    """The evaluations of a run, read from its metrics.jsonl as they are written."""

    def __init__(self, recipe: Recipe, path: Path):
        self._path, self._read, self._rest = path, 0, b""
        self._sections: dict[str, TrainSection] = {stage.name: stage.train for stage in recipe.stages}
        self._last_stage = recipe.stages[-1].name
        self._ends: dict[str, tuple[float, int]] = {}
        """Stage -> (epochs, step) of its last line."""

    def new(self) -> list[tuple[int, dict[str, float], bool]]:
        """Those that have come since: (thousandths of an epoch, over all stages, metrics, whether the run ends with it)."""
        found = []
        for line in self._lines():
            stage, epoch, step = line.get("stage"), line.get("epoch"), line.get("step")
            if stage not in self._sections or not isinstance(epoch, (int, float)) or not isinstance(step, int):
                continue
            before = [end for name, end in self._ends.items() if name != stage]
            self._ends[stage] = epoch, step
            metrics = (line.get("evaluation") or {}).get("dev")
            if metrics:
                train, taken = self._sections[stage], step - max((end[1] for end in before), default=0)
                over = epoch >= train.epochs if train.steps is None else taken >= train.steps
                position = round(1000 * (epoch + sum(end[0] for end in before)))
                found.append((position, metrics, over and stage == self._last_stage))
        return found

    def _lines(self) -> list[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._read:  # a resumed run drops what came after its state, and writes it again
                    self._read, self._rest, self._ends = 0, b"", {}
                file.seek(self._read)
                data = file.read()
        except OSError:
            return []
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            found += [entry] if isinstance(entry, dict) else []
        return found


def run_trial(recipe: Recipe, folder: Path, on: Circumstances, watch: Watch, asked: Callable[[], int]) -> Ended:
    """Run a recipe into a folder, or go on with the run there. `asked()` is how often the user asked to stop: once, and the run
    saves what it has; twice, and it ends at once."""
    if (folder / RESULT).is_file():  # whoever ran it was killed before it could say so
        found = read_result(folder)
        if found.get("recipe_digest", recipe.digest()) != recipe.digest():
            return Ended("failed", error=f"{folder}: holds a run of another recipe")
        for evaluation in Evaluations(recipe, folder / METRICS).new():
            if watch(*evaluation):
                return Ended("pruned")
        return Ended("complete", found)
    file, log = folder.with_suffix(".yaml"), folder.with_suffix(".log")
    recipe.write(file)
    command = python_command(interpreter(on.backend), "crossdistil", "run", str(file), "--out", str(folder))
    command += ["--backend", on.backend, "--precision", on.precision]
    command += ["--no-latency"]  # trials run beside each other, and their latencies are measured apart
    command += ["--device", on.device] if on.device else []
    command += ["--resume"] if (folder / MARKER).is_file() else []
    threads = {} if on.threads is None else {"OMP_NUM_THREADS": str(on.threads)}
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            command,
            env=child_environment() | threads,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C comes to the search, which decides
        )
    try:
        state = _watched(process, Evaluations(recipe, folder / METRICS), watch, asked)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if state != "complete":
        return Ended(state)
    if process.returncode == 0 and (folder / RESULT).is_file():
        return Ended("complete", read_result(folder))
    if asked():
        return Ended("stopped")
    return Ended("failed", error=_reason(log, begin, process.returncode))


def _watched(process: subprocess.Popen, evaluations: Evaluations, watch: Watch, asked: Callable[[], int]) -> str:
    """Wait for a run to end; `complete` where it ended by itself, in whichever way."""
    told_at = 0.0
    while True:
        ended = process.poll() is not None
        for evaluation in evaluations.new():
            if watch(*evaluation):
                _end(process)
                return "pruned"
        if ended:
            return "complete"
        if asked() and not told_at:
            process.send_signal(signal.SIGTERM)
            told_at = time.monotonic()
        if asked() > 1 or (told_at and time.monotonic() - told_at > _PATIENCE_SECONDS):
            process.kill()
        time.sleep(_POLL_SECONDS)


def _end(process: subprocess.Popen) -> None:
    """End a run whose result nobody needs."""
    process.kill()
    process.wait()


def _reason(log: Path, begin: int, code: int) -> str:
    """What a run said before it failed."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    said = [line.removeprefix(MESSAGE_PREFIX) for line in lines if line.startswith(MESSAGE_PREFIX)]
    if said:
        return said[0]
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    how = "it ended with " + ending(code) if code else "it wrote no result"
    return f"{how}{f': {last[:300]}' if last else ''} (see {log})"


def score_of(result: dict[str, Any], metric: str, recipe: Recipe) -> float:
    """The score of a run's student. Raises CrossdistilError where it has none."""
    value = (result["student"].get("metrics") or {}).get(metric)
    if not isinstance(value, (int, float)):
        raise CrossdistilError(f"{recipe.method}: its student was not scored by {metric}")
    return float(value)
