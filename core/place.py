"""Where a launcher has put this process among those of a run (`core.app.launchers`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a launcher has put this process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number among the processes of this machine, which is the number of its device."""
    launcher: str = ""
    """Who started it, for messages; empty where it was started alone."""
    local_size: int = 0
    """The processes of this machine; 0 where the launcher does not say."""


ALONE = Place()
DEVICES = "--devices"
"""The launcher of processes that this program has started itself."""
