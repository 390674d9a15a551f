"""What a model predicts by torch in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossdistil.core.app.predicting import Prediction, predict
from crossdistil.core.app.sessions import session
from crossdistil.core.engine import EngineOptions


def predicted(folder: Path, texts: Sequence[str], options: EngineOptions) -> list[Prediction]:
    """The predictions for texts, as the commands make them."""
    with session("torch", options) as processes:
        return predict(folder, texts, None, processes)
