"""How far two runs may be apart and still count as the same training, each limit with its reason: one table for two backends,
and one for one backend with another number of processes.

The limits are for float32. Every figure is a plain number that `core.app.compare` computes for a pair of runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Tolerance:
    """A limit: `name` is the key in crosscheck.json, `title` what a reader sees, `bound` which side is allowed."""

    name: str
    title: str
    limit: float
    reason: str
    bound: Literal["at most", "at least"] = "at most"

    def holds(self, value: float | None) -> bool:
        """Whether `value` is within the limit; what could not be computed (None) or is not finite never is."""
        if value is None or not math.isfinite(value):
            return False
        return value <= self.limit if self.bound == "at most" else value >= self.limit


TOLERANCES = (
    Tolerance(
        "initial_logits_max_difference",
        "First logits, largest difference",
        1e-5,
        "Same weights, same batch, no training yet: only the order of float32 sums and the exp, tanh and erf kernels "
        "differ, which is about 1e-6 on logits of size 1. The tanh form of GELU in place of erf, the usual porting "
        "mistake, moves each activation by up to 5e-4.",
    ),
    Tolerance(
        "hidden_max_relative_difference",
        "First hidden states, relative",
        2e-5,
        "L2 norm of the difference over that of the state, real tokens only, worst layer. Rounding adds up to some "
        "1e-6 over 12 layers; the rest is room for faster softmax and LayerNorm kernels (MindSpore's and OneFlow's).",
    ),
    Tolerance(
        "gradient_max_relative_difference",
        "First gradients, relative",
        1e-4,
        "L2 norm of the difference over that of the tensor, worst tensor. Backward passes sum over tokens and batch in "
        "orders of their own, and small tensors are differences of large terms: 5e-5 was seen between correct kernels.",
    ),
    Tolerance(
        "loss_max_relative_difference",
        "Loss, relative, worst step",
        5e-5,
        "Training is a feedback loop: a rounding difference of 1e-7 in the first step grows with every update. In a "
        "hundred steps it stays well below 5e-5, while a wrong optimizer constant or schedule passes it in a few.",
    ),
    Tolerance(
        "prediction_agreement",
        "Same predictions after training",
        0.99,
        "Only examples whose two best classes are almost equally likely may change sides; they are far fewer than 1%.",
        bound="at least",
    ),
)

PROCESS_TOLERANCES = (
    Tolerance(
        "loss_max_relative_difference",
        "Loss, another number of processes, worst step",
        1e-6,
        "The same kernels compute the same examples; only the order in which the gradients of a step are added differs. A "
        "mean over processes in place of a sum over examples, or a part that two processes had or none, is 1e-3 and more in "
        "the first step.",
    ),
    Tolerance(
        "weights_max_relative_difference",
        "Final weights, another number of processes",
        1e-5,
        "L2 norm of the difference over that of the tensor, worst tensor. What the order of sums changes in a gradient is "
        "about 1e-7 of it, and an optimizer may take all of it into a step where a gradient is nearly zero. Biases of "
        "attention keys are left out: their gradient is zero in theory (softmax ignores a shift), so that they move by "
        "rounding noise alone, and change nothing.",
    ),
    Tolerance(
        "prediction_agreement",
        "Same predictions, another number of processes",
        0.999,
        "With weights so close, two classes would have to be equally likely to five digits.",
        bound="at least",
    ),
)

# Parameters whose gradient is zero in theory.
IDLE_PARAMETER = r"\.attention\.(self\.)?(key|k_lin)\.bias"

# Losses that only know differences of the scores of a list: where all of a stage's are, the gradient of the one number that is
# added to all scores is zero in theory, too.
OF_DIFFERENCES = frozenset({"ranking_margin_mse", "ranknet", "lambdarank", "listnet"})

# Two scores of a regression task that are closer than this are the same prediction; labels there have steps of 0.1 or
# more.
REGRESSION_PREDICTION_DIFFERENCE = 1e-2

# Below this, a loss is compared as if it were this large: it is then a small difference of large logits, and has fewer
# correct digits than a float32 can hold.
LOSS_FLOOR = 1e-3

# Gradients smaller than this share of the norm of all gradients together are compared as if they were this large. The
# gradient of an attention key's bias is exactly zero in theory (softmax ignores a shift), in practice rounding noise.
GRADIENT_FLOOR = 1e-3


def tolerance(name: str) -> Tolerance:
    """The row of that name, of two backends where there are both."""
    return next(row for row in TOLERANCES + PROCESS_TOLERANCES if row.name == name)
