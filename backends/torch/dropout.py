"""Dropout of a step: on a CPU by `core.dropout_masks`, on devices and in compiled steps by PyTorch's own kernel.

PyTorch's kernel for a CPU draws a number of 32 bits for each element and keeps a float32 mask. Attention with dropout has no
fast kernel there at all, so `attention.py` takes its masks from here too.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ...core.dropout_masks import Draws, scale

OWN, PYTORCH = "masks of 16 bits", "pytorch"
"""What draws the masks; a run goes on with that of the process that started it."""


class DropoutMasks:
    """Where dropout takes its randomness from: one seed, given before each micro-batch, decides everything."""

    def __init__(self, own: bool):
        """`own` masks are for tensors on a CPU, outside compiled functions."""
        self.own = own
        self._draws = Draws()

    def reseed(self, seed: int) -> None:
        """Begin the masks of that seed."""
        if not self.own:
            torch.manual_seed(seed)
            return
        # Of a CPU alone: `torch.manual_seed` also notes the stack, line by line, for kinds of devices that were never used.
        torch.default_generator.manual_seed(seed)
        self._draws.reseed(seed)

    def factors(self, shape, rate: float, dtype, kept: float = 1.0) -> torch.Tensor:
        """The next mask, of which about `rate` are 0 and the others `kept`. Only of `own` masks."""
        found = self._draws.kept(tuple(shape), rate)
        if dtype is torch.float32:
            return torch.from_numpy(np.multiply(found.view(np.uint8), np.float32(kept)))
        if dtype is torch.bfloat16:  # the bits of that number or none: PyTorch's way from booleans takes ten times as long
            bits = found.astype(np.int16)
            bits *= np.int16(torch.tensor(kept, dtype=dtype).view(torch.int16).item())
            return torch.from_numpy(bits).view(dtype)
        return torch.from_numpy(found).to(dtype).mul_(kept)

    def apply(self, x, rate: float):
        """Inverted dropout of `x`."""
        if not self.own:
            return F.dropout(x, rate)
        return x * self.factors(x.shape, rate, x.dtype, scale(rate))
