"""A program that two OneFlow processes run: steps whose sums are counted, then one of them is killed while the other waits for
it.

The steps are those of `run_steps`, which a process that is alone can take too.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

from crossdistil.core.app.joining import ending_together, join
from crossdistil.core.app.launchers import find_place
from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.world import Share

SPEC = OptimizerSpec("adamw", epsilon=1e-2, weight_decay=0.1, max_gradient_norm=0.5)
PARTS, STEPS, WIDTH = 4, 5, 7
SHAPES = {"a.weight": (3, WIDTH), "b.weight": (WIDTH, 2), "even.weight": (WIDTH,), "odd.weight": (WIDTH, 1, 2)}
FLOATS = sum(int(np.prod(shape)) for shape in SHAPES.values()) + 2
"""Of all parameters, the total and one term."""


def parameters() -> dict[str, np.ndarray]:
    """Before the first step."""
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def objective(ops, params, frozen, batch):
    """Of the parameters `even` and `odd`, each micro-batch reaches one; where `gates` is 0, none at all."""
    if float(batch["gates"].sum()) == 0:
        value = ops.sum(batch["x"]) * 0.0
    else:
        hidden = ops.dropout(ops.matmul(batch["x"], params["a.weight"]), 0.25)
        odd = float(batch["gates"].sum()) == 2
        scale = ops.reshape(params["odd.weight"], (WIDTH, 2)) if odd else ops.reshape(params["even.weight"], (WIDTH, 1))
        value = ops.sum(ops.matmul(hidden, params["b.weight"] * scale) * batch["y"]) / batch["denominators"][0]
    return value, ops.stack([value, value])


def statistics(ops, params, frozen, batch):
    """What FLSW and CWSM need is of this kind."""
    return ops.stack([ops.sum(batch["x"])])


def steps(share: Share):
    """The steps as a process of this share takes them: the second one reaches nothing, in the third one only the first process's
    parts reach something."""
    generator = np.random.default_rng(1)
    for number in range(STEPS):
        micro_batches = []
        for part in range(PARTS):
            gate = 0 if number == 1 or (number == 2 and part % 2) else 1 + part % 2
            micro_batches.append(
                {
                    "x": generator.normal(size=(5, 3)).astype(np.float32),
                    "y": generator.normal(size=(5, 2)).astype(np.float32),
                    "gates": np.full(1, gate, np.float32),
                    "denominators": np.full(1, 20, np.float32),
                }
            )
        yield Step(share.of(micro_batches), 1e-2, number, share)


def run_steps(engine, share: Share, with_statistics: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray], float]:
    """Values of each step, the parameters after the last, and the seconds of waiting."""
    step = engine.train_step(objective, parameters(), {}, SPEC, statistics if with_statistics else None)
    values = step.run(steps(share), STEPS).fetch()
    return values, step.parameters(), step.communication


def _count_sums() -> list[int]:
    import oneflow as flow

    found, original = [], flow._C.local_all_reduce

    def counted(tensor, inplace):
        found.append(tensor.numel())
        return original(tensor, inplace=inplace)

    flow._C.local_all_reduce = counted
    return found


def main() -> None:
    """Rank 0 writes what it has found; then rank 1 dies."""
    out, place = sys.argv[1], find_place()
    from crossdistil.backends.oneflow.engine import OneFlowEngine

    engine = OneFlowEngine(EngineOptions("cpu", place=place))
    world = join(engine)
    with ending_together(world, place):
        sums = _count_sums()
        values, found, waited = run_steps(engine, world.share)
        plain = list(sums)
        run_steps(engine, world.share, with_statistics=True)
        if place.rank == 0:
            counts = {"sums": plain, "with statistics": sums[len(plain) :], "waited": waited, "values": values}
            np.savez(out, **counts, **{f"parameters/{name}": array for name, array in found.items()})
        world.barrier()
        if place.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        engine.total(np.ones(3, np.float32))  # waits inside OneFlow


if __name__ == "__main__":
    main()
