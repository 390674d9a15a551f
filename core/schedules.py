"""Learning-rate schedules: step -> factor of the peak learning rate.

`step` counts from 0 to `total - 1`; the factor of a step is the one used for its update. During `warmup` steps the factor
rises linearly and reaches 1 on the first step after them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

SLANTED_RATIO = 32.0
"""How much smaller the lowest rate is than the peak (Howard and Ruder 2018, section 3.2)."""


def _linear(progress: float) -> float:
    return 1.0 - progress


def _constant(progress: float) -> float:
    return 1.0


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


DECAYS: dict[str, Callable[[float], float]] = {"linear": _linear, "constant": _constant, "cosine": _cosine}
SCHEDULES = (*DECAYS, "slanted_triangular")


def in_steps(share: float, total: int) -> int:
    """A point in a stage of `total` steps: below 1 `share` is a share of them, from 1 on a number of steps."""
    return int(round(share * total)) if share < 1 else int(share)


def schedule(
    name: str, total: int, warmup: int, ratio: float = SLANTED_RATIO, decay: Callable[[float], float] | None = None
) -> Callable[[int], float]:
    """The factor function of a schedule over `total` steps; a plugin's is its `decay`.

    `slanted_triangular` (Howard and Ruder 2018, equation 3): with p rising linearly to 1 at the end of the warm-up and
    falling linearly to 0 at `total`, the factor is (1 + p * (ratio - 1)) / ratio.
    """
    if name == "slanted_triangular":

        def slanted(step: int) -> float:
            cut = max(warmup, 1)
            p = step / cut if step < cut else max(0.0, 1.0 - (step - cut) / max(total - cut, 1))
            return (1.0 + p * (ratio - 1.0)) / ratio

        return slanted

    decay = decay or DECAYS[name]

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return decay(min(1.0, (step - warmup) / max(total - warmup, 1)))

    return factor
