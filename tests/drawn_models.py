"""Models of any family with random weights and a head, in a folder that transformers opens, and a batch for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.model_sections import StudentSection
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.student import student_config
from crossdistil.tests import tiny


def write_drawn(
    folder: Path, family: str, answering: Callable, outputs: int | None, labels: tuple[str, ...] | None = None, **about: Any
) -> tuple[Path, np.ndarray, np.ndarray]:
    """The folder of a model whose head is what `answering` makes of its configuration; ids (2, 9), and a mask of them with
    padding in the second row."""
    tiny.write_vocabulary(folder / "words")
    section = StudentSection(architecture={"model_type": family}, init={"from": "random"})
    config = answering(student_config(section, tiny.CONFIG.without_dropout(), None)[0])
    drawn = np.random.default_rng(2)
    parameters = {name: drawn.normal(0, 0.3, shape).astype(np.float32) for name, shape in tensor_shapes(config, outputs).items()}
    save_model(Model(config, parameters, outputs, labels, **about), folder / "model", load_tokenizer(folder / "words"))
    ids, mask = drawn.integers(5, 60, (2, 9)), np.ones((2, 9), np.float32)
    mask[1, 6:] = 0
    return folder / "model", ids, mask
