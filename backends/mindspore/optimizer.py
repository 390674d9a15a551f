"""AdamW, BertAdam and Adadelta inside the compiled step; `core.optimizers` has the formulas.

On CPU the first two are MindSpore's fused `Adam` kernel, told that the powers of its decay rates are 0, after the decay of the
weights (its `AdamWeightDecay` takes twice as long as both). It then computes BertAdam's update. AdamW's is the same with other
numbers: with c1 = 1 - b1^t and c2 = 1 - b2^t,
  lr (m / c1) / (sqrt(v / c2) + eps)  =  lr' m / (sqrt(v) + eps')   for lr' = lr sqrt(c2) / c1 and eps' = eps sqrt(c2),
and its decay lr wd p is lr' wd' p for wd' = wd lr / lr'. Elsewhere the same update is written out. The three numbers
are computed on the host in float64: 1 - b2^t has only four good digits in float32.
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import ops as P

from ...core.optimizers import CLIP_EPSILON, OptimizerSpec, correction, held, is_decayed


class Optimizer:
    """The state of an optimizer over the named parameters that it trains; `update` is built into the compiled step, and
    takes the gradients by all of `params`."""

    def __init__(self, params: dict[str, ms.Parameter], spec: OptimizerSpec, fused: bool, ops=None):
        trained = {name: p for name, p in params.items() if spec.is_trained(name)}
        self._names, self._spec = list(trained), spec
        is_adadelta = spec.name == "adadelta"
        kinds = ("square_avg", "acc_delta") if is_adadelta else ("exp_avg", "exp_avg_sq")
        kinds = kinds if spec.own is None else spec.own.kinds
        self._moments = {kind: _zeros_like(trained, kind) for kind in kinds}
        self._steps = 0
        if spec.own is not None:
            apply = make_own(params, list(self._moments.values()), spec, ops)
        else:
            make = make_adadelta if is_adadelta else make_adam
            apply = make(params, *self._moments.values(), spec, fused)
        self.update = make_update(make_norm(), spec.max_gradient_norm, apply)

    def numbers(self, learning_rate: float) -> np.ndarray:
        """What changes in the next step: (lr', eps', wd' / wd) as float32, of an own update (lr, `OptimizerSpec.numbers`). Counts
        the step."""
        self._steps += 1
        if self._spec.own is not None:
            return np.array([learning_rate, *self._spec.numbers(self._steps).values()], np.float32)
        if self._spec.name != "adamw":
            return np.array([learning_rate, self._spec.epsilon, 1.0], np.float32)
        first = correction(self._spec.beta1, self._steps)
        root = math.sqrt(correction(self._spec.beta2, self._steps))
        return np.array([learning_rate * root / first, self._spec.epsilon * root, first / root], np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Everything that is needed to go on, as host arrays."""
        arrays = {"steps": np.array(self._steps)}
        for kind, moments in self._moments.items():
            for name, moment in zip(self._names, moments):
                arrays[f"{kind}/{name}"] = moment.asnumpy().copy()
        return arrays

    def state_layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and type of each array of `state`."""
        moments = {
            f"{kind}/{name}": (tuple(moment.shape), np.dtype(np.float32))
            for kind, moments in self._moments.items()
            for name, moment in zip(self._names, moments)
        }
        return {"steps": ((), np.dtype(np.int64)), **moments}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go back to what `state` returned."""
        self._steps = int(state["steps"])
        for kind, moments in self._moments.items():
            for name, moment in zip(self._names, moments):
                overwrite(moment, state[f"{kind}/{name}"])


def overwrite(parameter: ms.Parameter, array: np.ndarray) -> None:
    """Change a parameter's values. A graph that has run once does not see `Parameter.set_data`, without a word."""
    P.assign(parameter, ms.Tensor(array))


def _zeros_like(params, kind):
    return [
        ms.Parameter(ms.Tensor(np.zeros(p.shape, np.float32)), name=f"{kind}/{name}", requires_grad=False)
        for name, p in params.items()
    ]


def make_norm():
    """`norm(gradients)`: their global norm."""

    def norm(gradients):
        total = 0.0
        for gradient in gradients:
            # MindSpore's L2Loss is 2 % wrong on a large embedding table, and one sum over both axes ten times slower.
            square = gradient * gradient
            total = total + (P.sum(P.sum(square, -1)) if len(gradient.shape) > 1 else P.sum(square))
        return P.sqrt(total)

    return norm


def make_update(norm, limit: float | None, apply):
    """`update(gradients, numbers, loss)`: changes parameters and moments in place, and returns the gradient's norm, before it is
    clipped to at most `limit`. Where that or the loss is not finite, everything stays as it is; the device decides it."""

    def update(gradients, numbers, loss):
        length = norm(gradients)
        scale = P.ones_like(length) if limit is None else P.minimum(limit / (length + CLIP_EPSILON), P.ones_like(length))
        if P.isfinite(length + loss):
            clipped = []
            for gradient in gradients:
                clipped.append(gradient if limit is None else gradient * scale)
            apply(clipped, numbers)
        return length

    return update


def _trained(params, spec: OptimizerSpec):
    """Of each parameter that is trained: itself, its place among all, its decay, and its rate factor, as four lists."""
    names = [name for name in params if spec.is_trained(name)]
    places = [place for place, name in enumerate(params) if spec.is_trained(name)]
    decays = [spec.weight_decay if is_decayed(name) else 0.0 for name in names]
    return [params[name] for name in names], places, decays, [spec.rate_factor(name) for name in names]


def make_adam(params, means, squares, spec: OptimizerSpec, fused: bool):
    """`apply(gradients, numbers)`, which changes parameters and moments in place."""
    params, places, decays, factors = _trained(params, spec)
    beta1, beta2 = held(spec.beta1), held(spec.beta2)
    kernel = P.Adam()

    def written_out(p, m, v, rate, epsilon, decay, g):
        mean, square = m * beta1 + g * (1.0 - beta1), v * beta2 + g * g * (1.0 - beta2)
        P.assign(m, mean)
        P.assign(v, square)
        P.assign(p, p - rate * (mean / (P.sqrt(square) + epsilon) + decay * p))

    def apply(gradients, numbers):
        rate, epsilon, decay_scale = numbers[0], numbers[1], numbers[2]
        for index in range(len(params)):
            p, m, v, g = params[index], means[index], squares[index], gradients[places[index]]
            decay, own_rate = decay_scale * decays[index], rate * factors[index]
            if fused:
                if decays[index]:
                    P.assign_sub(p, p * (own_rate * decay))
                kernel(p, m, v, 0.0, 0.0, own_rate, beta1, beta2, epsilon, g)
            else:
                written_out(p, m, v, own_rate, epsilon, decay, g)

    return apply


def make_adadelta(params, squares, deltas, spec: OptimizerSpec, fused: bool):
    """The same for Adadelta: on CPU MindSpore's kernel, elsewhere written out."""
    params, places, decays, factors = _trained(params, spec)
    rho, epsilon = spec.beta2, spec.epsilon
    kernel = P.ApplyAdadelta()

    def written_out(p, v, u, rate, g):
        square = v * rho + g * g * (1.0 - rho)
        change = P.sqrt(u + epsilon) / P.sqrt(square + epsilon) * g
        P.assign(v, square)
        P.assign(u, u * rho + change * change * (1.0 - rho))
        P.assign(p, p - rate * change)

    def apply(gradients, numbers):
        for index in range(len(params)):
            p, v, u = params[index], squares[index], deltas[index]
            g, own_rate = gradients[places[index]], numbers[0] * factors[index]
            if decays[index]:
                g = g + decays[index] * p
            if fused:
                kernel(p, v, u, own_rate, rho, epsilon, g)
            else:
                written_out(p, v, u, own_rate, g)

    return apply


def make_own(params, moments, spec: OptimizerSpec, ops):
    """The same for an optimizer of a plugin; `moments` are lists over the parameters, one of each kind."""
    params, places, decays, factors = _trained(params, spec)
    beta1, beta2, epsilon = spec.beta1, spec.beta2, spec.epsilon
    kinds = len(moments)
    function = spec.own.function

    def apply(gradients, numbers):
        for index in range(len(params)):
            now = {
                "rate": numbers[0] * factors[index],
                "decay": decays[index],
                "beta1": beta1,
                "beta2": beta2,
                "epsilon": epsilon,
                "step": numbers[1],
                "correction1": numbers[2],
                "correction2": numbers[3],
            }
            state = []
            for kind in range(kinds):
                state.append(moments[kind][index] * 1.0)
            changed, state = function(ops, params[index] * 1.0, gradients[places[index]], state, now)
            for kind in range(kinds):
                P.assign(moments[kind][index], state[kind])
            P.assign(params[index], changed)

    return apply
