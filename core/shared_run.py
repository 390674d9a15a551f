"""The run folder of a run of several processes: the first one has it, and the others know what is in it.

Only the first process reads and writes; what it reads it gives to the others, which need not see its file system. It looks
like `core.runs.RunFolder` to those who train.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from .errors import RunFolderError
from .recipe import Recipe
from .runs import RunFolder
from .states import State
from .world import World

_GROUPS = ("parameters", "optimizer", "best")


class SharedRun:
    """`RunFolder` of the processes of a `world`. Raises what that raises, in all of them."""

    def __init__(self, world: World, path: Path, recipe: Recipe, identity: dict[str, Any], resume: bool):
        self.path, self._world = path, world
        self._folder: RunFolder | None = world.lead(RunFolder, path, recipe, identity, resume)
        self.complete = world.any(self._folder is not None and self._folder.complete)

    def nothing_to_resume(self) -> RunFolderError:
        """As `RunFolder.nothing_to_resume`."""
        found = self._world.lead(lambda: str(self._folder.nothing_to_resume()))
        return RunFolderError(self._world.first((found or "").encode()).decode())

    def append(self, line: dict[str, Any]) -> None:
        """As `RunFolder.append`."""
        if self._folder is not None:
            self._folder.append(line)

    def append_watched(self, line: dict[str, Any]) -> None:
        """As `RunFolder.append_watched`."""
        if self._folder is not None:
            self._folder.append_watched(line)

    def save_state(self, state: State) -> None:
        """As `RunFolder.save_state`. No process goes on before the state is on the disk."""
        self._world.lead(lambda: self._folder.save_state(state))

    def load_state(self) -> State | None:
        """As `RunFolder.load_state`; all processes get the same state."""
        state = self._world.lead(lambda: self._folder.load_state())
        if self._world.size == 1:
            return state
        return _unpacked(self._world.first(_packed(state) if self._folder is not None else b""))

    def write_result(self, result: dict[str, Any]) -> None:
        """As `RunFolder.write_result`. It is the run's last act: the others may end before it."""
        self._world.close()
        if self._folder is not None:
            self._folder.write_result(result)
        self.complete = True

    def left(self) -> str:
        """As `RunFolder.left`; empty in other processes than the first."""
        return "" if self._folder is None else self._folder.left()

    def close(self) -> None:
        """As `RunFolder.close`."""
        if self._folder is not None:
            self._folder.close()

    def discard_if_new(self, keep_logs: bool = False) -> None:
        """As `RunFolder.discard_if_new`."""
        if self._folder is not None:
            self._folder.discard_if_new(keep_logs)


def _packed(state: State | None) -> bytes:
    if state is None:
        return b""
    arrays = {
        f"{group}/{name}": np.asarray(array, order="C")  # not ascontiguousarray: it gives a counter a dimension
        for group in _GROUPS
        for name, array in (getattr(state, group) or {}).items()
    }
    about = {"step": state.step, "notes": state.notes, "source": str(state.source), "best": state.best is not None}
    head = json.dumps(about).encode()
    return struct.pack(">Q", len(head)) + head + save(arrays)


def _unpacked(data: bytes) -> State | None:
    if not data:
        return None
    (length,) = struct.unpack_from(">Q", data)
    about, arrays = json.loads(data[8 : 8 + length]), load(data[8 + length :])
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _GROUPS}
    for name, array in arrays.items():
        group, _, own = name.partition("/")
        groups[group][own] = array
    best = groups["best"] if about["best"] else None
    source = Path(about["source"])
    return State(about["step"], groups["parameters"], groups["optimizer"], best, about["notes"], source)
