"""MLflow: a run on a tracking server, in a database, or in a folder. A run that goes on is the same run there."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from ..events import Evaluated, Failed, Finished, Logged, Sink, Started
from ..log_section import MlflowSection
from ..recipe import flat
from .kept_ids import keep_id, kept_id

_LONGEST, _AT_ONCE = 500, 100
"""Characters of a parameter, and parameters of a call, that every server takes."""


class MlflowRun(Sink):
    """Tells a run of MLflow, by its client alone: nothing of the process's own MLflow state is used or changed."""

    def __init__(self, settings: MlflowSection):
        self._settings = settings
        self._client: Any = None
        self._id, self._last = "", 0

    def started(self, event: Started) -> None:
        from mlflow.tracking import MlflowClient

        self._client = client = MlflowClient(tracking_uri=self._settings.uri)
        self._last = event.step
        known = kept_id(event.logs, "mlflow")
        if known is not None:
            self._id = known
            client.update_run(known, status="RUNNING")
            return
        found = client.get_experiment_by_name(self._settings.experiment)
        experiment = client.create_experiment(self._settings.experiment) if found is None else found.experiment_id
        self._id = client.create_run(experiment, run_name=self._settings.name or event.name).info.run_id
        keep_id(event.logs, "mlflow", self._id)
        self._parameters(event)

    def logged(self, event: Logged) -> None:
        self._tell(event.step, event.scalars)

    def evaluated(self, event: Evaluated) -> None:
        self._tell(event.step, event.scalars)

    def finished(self, event: Finished) -> None:
        self._tell(self._last, event.scalars)
        self._client.set_terminated(self._id, "FINISHED")

    def failed(self, event: Failed) -> None:
        self._client.set_terminated(self._id, "KILLED" if event.interrupted else "FAILED")

    def _parameters(self, event: Started) -> None:
        from mlflow.entities import Param

        values = {"backend": event.backend, "device": event.device, "precision": event.precision, **flat(event.recipe)}
        params = [Param(_name(key), str(value)[:_LONGEST]) for key, value in values.items()]
        for first in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._id, params=params[first : first + _AT_ONCE])

    def _tell(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        self._last, now = step, int(time.time() * 1000)
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        self._client.log_batch(self._id, metrics=[Metric(_name(name), value, now, step) for name, value in known.items()])


def _name(name: str) -> str:
    """A name with the characters that MLflow allows."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)[:250]
