"""Weights & Biases: a run there for the run here, online or offline.

Without a network, `offline: true` writes to the run folder, and `wandb sync` uploads later. A run that goes on has the same id;
offline, it writes another folder with that id, and `wandb sync` puts both into one run.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from ..events import Evaluated, Failed, Finished, Logged, Sink, Started
from ..log_section import WandbSection
from .kept_ids import keep_id, kept_id


class WandbRun(Sink):
    """Tells a run of Weights & Biases."""

    def __init__(self, settings: WandbSection):
        self._settings = settings
        self._run: Any = None
        self._last = 0

    def started(self, event: Started) -> None:
        import wandb

        self._last = event.step
        known = kept_id(event.logs, "wandb")
        own = known or secrets.token_hex(4)
        keep_id(event.logs, "wandb", own)
        self._run = wandb.init(
            project=self._settings.project,
            name=self._settings.name or event.name,
            entity=self._settings.entity,
            dir=str(event.logs),
            id=own,
            resume="allow",
            mode="offline" if self._settings.offline else "online",
            config=dict(event.recipe),
            # The command's output is the user's; and wandb must neither ask for a key nor take the terminal's signals.
            settings=wandb.Settings(silent=True, console="off"),
        )

    def logged(self, event: Logged) -> None:
        self._tell(event.step, event.scalars)

    def evaluated(self, event: Evaluated) -> None:
        self._tell(event.step, event.scalars)

    def finished(self, event: Finished) -> None:
        self._run.summary.update(event.scalars)
        self._run.finish(exit_code=0)

    def failed(self, event: Failed) -> None:
        # What was interrupted shows as crashed there, until it goes on.
        self._run.finish(exit_code=1)

    def _tell(self, step: int, values: Mapping[str, float]) -> None:
        # Values of one step are one row there; steps that a resumed run takes again are known, and dropped there.
        self._run.log(dict(values), step=step)
