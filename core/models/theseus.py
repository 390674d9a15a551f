"""BERT-of-Theseus (Xu et al. 2020): modules of the predecessor are replaced at random by their successors.

A predecessor of N layers is cut into n modules of N / n layers, and the successor has one layer for each. In a training
step module i runs as the successor's layer where its gate is 1, as the predecessor's layers where it is 0; the gates are
drawn once per step, for the whole batch, from the recipe's seed (section 3.1 of the paper), so that they are the same
on every backend. With all gates 1 this is the successor alone, which is what is evaluated and exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..schedules import in_steps
from .encoder import assemble, make_bias, make_layer, padding_bias
from .parts import ENCODER
from .spec import EncoderConfig
from .tree import places

PREDECESSOR = "predecessor."
"""What the names of the predecessor's layers start with among the parameters."""
SCHEDULES = ("constant", "linear")


@dataclass(frozen=True)
class Replacement:
    """When modules are replaced: the probability of a gate being 1 at a step, and who the predecessor is."""

    predecessor: EncoderConfig
    blocks: int
    schedule: str
    """Before all modules are replaced, `constant`: `rate`. `linear`: from `rate` to 1 in equal steps; the paper's
    min(1, b + k * step) (section 3.3) with b = rate and k = (1 - rate) / until."""
    rate: float
    until: float | None = None
    """The step from which all modules are replaced, below 1 as a share of the stage's steps; None: the stage's end."""

    def all_from(self, total: int) -> int:
        """The first step, of `total`, at which every module is replaced for certain."""
        return total if self.until is None else in_steps(self.until, total)

    def probability(self, step: int, total: int) -> float:
        """The replacing rate at `step` of `total`, counted from 0."""
        end = self.all_from(total)
        if step >= end:
            return 1.0
        return self.rate if self.schedule == "constant" else self.rate + (1.0 - self.rate) * step / end

    def gates(self, seed: int, step: int, total: int) -> np.ndarray:
        """(blocks,) float32 of zeros and ones, the same for the same seed and step wherever it is computed."""
        draws = np.random.default_rng([seed, 0x7E5E, step]).random(self.blocks)
        return (draws < self.probability(step, total)).astype(np.float32)


def predecessor_tensors(config: EncoderConfig, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The encoder layers of a predecessor under the names that `make_replacing_forward` reads."""
    found = places(config)
    return {PREDECESSOR + name: array for name, array in parameters.items() if found.get(name) == ENCODER}


def make_replacing_forward(config: EncoderConfig, wanted: frozenset[str], replacement: Replacement):
    """As `core.models.encoder.make_forward`, with `batch["gates"]` (blocks,) choosing each module. Embeddings, pooler and
    classifier are the student's own. Hidden states are wanted of modules, attention is not to be had."""
    per_block = replacement.predecessor.num_hidden_layers // config.num_hidden_layers
    successors = [make_layer(config, config.layer_prefixes(block)[0], block + 1) for block in range(replacement.blocks)]
    predecessors = [
        make_layer(replacement.predecessor, PREDECESSOR + replacement.predecessor.layer_prefixes(layer)[0], layer + 1)
        for layer in range(replacement.predecessor.num_hidden_layers)
    ]

    predecessor_bias = make_bias(replacement.predecessor, PREDECESSOR)
    is_own = predecessor_bias is not padding_bias

    def make_module(block: int):
        def module(ops, params, x, bias, batch):
            def successor(y):
                return successors[block](ops, params, y, bias, batch)[0]

            def predecessor(y):
                added = predecessor_bias(ops, params, batch) if is_own else bias
                for layer in range(block * per_block, (block + 1) * per_block):
                    y = predecessors[layer](ops, params, y, added, batch)[0]
                return y

            return ops.choose(batch["gates"][block], successor, predecessor, x), {}

        return module

    return assemble(config, wanted, "", [make_module(block) for block in range(replacement.blocks)])
