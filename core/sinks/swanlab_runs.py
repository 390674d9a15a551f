"""SwanLab: an experiment there for the run here, in its cloud or offline.

`offline: true` writes to the run folder, and `swanlab sync` uploads later. In the cloud, a run that goes on is the same
experiment; offline, it writes another folder.
"""

from __future__ import annotations

import secrets
from typing import Any

from ..events import Evaluated, Failed, Finished, Logged, Sink, Started
from ..log_section import SwanlabSection
from .kept_ids import keep_id, kept_id


class SwanlabRun(Sink):
    """Tells an experiment of SwanLab."""

    ends_in_main_thread = True

    def __init__(self, settings: SwanlabSection):
        self._settings = settings
        self._run: Any = None
        self._last = 0

    def started(self, event: Started) -> None:
        import swanlab

        self._last = event.step
        folder = event.logs / "swanlab"
        folder.mkdir(parents=True, exist_ok=True)
        own = kept_id(event.logs, "swanlab") or secrets.token_hex(10)
        keep_id(event.logs, "swanlab", own)
        self._run = swanlab.init(
            project=self._settings.project,
            name=self._settings.name or event.name,
            workspace=self._settings.workspace,
            config=dict(event.recipe),
            log_dir=str(folder),
            mode="offline" if self._settings.offline else "online",
            id=own,
            resume="allow",
        )

    def logged(self, event: Logged) -> None:
        self._tell(event.step, event.scalars)

    def evaluated(self, event: Evaluated) -> None:
        self._tell(event.step, event.scalars)

    def finished(self, event: Finished) -> None:
        self._tell(self._last, event.scalars)
        self._run.finish()

    def failed(self, event: Failed) -> None:
        self._run.finish(state="aborted" if event.interrupted else "crashed", error=event.reason)

    def _tell(self, step: int, values: dict[str, float]) -> None:
        self._last = step
        self._run.log(values, step=step)
