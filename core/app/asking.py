"""Models that are asked for their answers on dev when no run kept them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..engine import EngineOptions
from ..task_data import TaskData
from .inference import Answered, answered
from .sessions import session


def asker(backend: str, device: str | None = None):
    """`f(model folder, task section, data folder)`: the model's answers on dev, as `compared_runs.Ask`. The section may be empty:
    then the model says itself what its task is."""

    def ask(
        model: Path, section: dict[str, Any], data: Path, check: Callable[[TaskData], None] | None = None
    ) -> Answered:
        columns = {key: section.get(key) for key in ("text", "text_pair", "label")}
        if None in (columns["text"], columns["label"]):  # of files that say it themselves, or that the model knows
            columns = {}
        with session(backend, EngineOptions(device, "fp32")) as own:
            more = {"columns": columns, "tell": _tell, "registered": None, "check": check}
            found = answered(model, section.get("name"), data, "dev", own, **more)
        print(f"{model}: was asked about dev of {data}, since no answers were kept", file=sys.stderr)
        return found

    return ask


def _tell(line: str) -> None:
    if line.startswith("warning: "):
        print(line, file=sys.stderr)
