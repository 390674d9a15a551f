"""A user's own file with a loss, a recipe that trains with it, and the folders that both lie in."""

from __future__ import annotations

import json
from pathlib import Path

from crossdistil.tests import tiny

LOSS = '''
from typing import ClassVar, Literal
import numpy as np
from pydantic import Field
from crossdistil import LossTerm, register_loss, sum_rows


class Apart(LossTerm):
    """How far apart the logits are."""

    loss: Literal["apart"]
    temperature: float = Field(1.0, gt=0)
    needs_teacher: ClassVar[bool] = True

    def function(self, context, label):
        scale = 1.0 / self.temperature

        def apart(ops, params, student, teacher, batch):
            difference = (student["logits"] - teacher["logits"]) * scale
            return sum_rows(ops, ops.sum(difference * difference, axis=1), batch)

        return apart


def formula(term, student, teacher):
    return np.mean(np.sum(((student["logits"] - teacher["logits"]) / term.temperature) ** 2, axis=1))


register_loss(Apart, numpy=formula, cases=[{}, {"temperature": 4}])
'''


def write_recipe(folder: Path, plugin: str | None = "my_losses.py", loss: str = "apart", **train) -> Path:
    tree = tiny.kd_recipe(folder / "task", folder / "model", **train)
    if plugin is not None:
        tree["plugins"] = [plugin]
    tree["stages"][0]["objective"][0] = {"loss": loss, "temperature": 2, "weight": 0.5}
    (folder / "recipe.yaml").write_text(json.dumps(tree))
    return folder / "recipe.yaml"


def write_loss(folder: Path) -> Path:
    """The folder, with the file in it."""
    (folder / "my_losses.py").write_text(LOSS)
    return folder


def write_world(folder: Path) -> Path:
    """The same, with the task and the model of the recipe."""
    tiny.write_task(folder / "task", 24, 12)
    tiny.write_model(folder / "model")
    return write_loss(folder)
