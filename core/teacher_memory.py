"""A teacher's outputs without a disk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .checkpoint import Model
from .teacher_outputs import load, make_layout, pieces


class TeacherMemory:
    """As a `TeacherCache`, for outputs that are small: a row's are computed when it is first asked for."""

    def __init__(
        self,
        outputs: tuple[str, ...],
        model: Model,
        lengths: np.ndarray,
        compute: Callable[[np.ndarray], list[np.ndarray]],
    ):
        """`compute(rows)` gives the outputs of some rows, padded as the model gave them."""
        self._lengths, self._compute = np.asarray(lengths), compute
        self.layouts = [make_layout(name, model.config, model.outputs, self._lengths) for name in outputs]
        self._known = np.zeros(len(self._lengths), bool)
        self._flat: list[np.ndarray] = []

    @property
    def size(self) -> int:
        """Bytes in memory, at most."""
        return sum(layout.size for layout in self.layouts) * 4

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """As `TeacherCache.batch`."""
        real = rows[rows >= 0]
        new = real[~self._known[real]]
        if not self._flat:
            self._flat = [np.empty(layout.size, np.float32) for layout in self.layouts]
        if len(new):
            for layout, flat, values in zip(self.layouts, self._flat, self._compute(new)):
                for start, piece in pieces(layout, new, self._lengths[new], values):
                    flat[start : start + len(piece)] = piece
            self._known[new] = True
        return {layout.name: load(layout, flat, rows, length) for layout, flat in zip(self.layouts, self._flat)}
