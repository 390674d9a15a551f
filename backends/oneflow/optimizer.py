"""AdamW and BertAdam by OneFlow's `adam_update` kernel, Adadelta by `adadelta_update`, with clipping by the global norm;
`core.optimizers` has the formulas.

OneFlow's own `clip_grad_norm_` is not used: its norm adds up in one float32 accumulator, which is 1% off for a
vocabulary's embedding table.
"""

from __future__ import annotations

import numpy as np
import oneflow as flow

from ...core.optimizers import CLIP_EPSILON, OptimizerSpec, correction, is_decayed


def make_optimizer(params: dict[str, flow.Tensor], spec: OptimizerSpec, ops=None):
    """The optimizer of that specification over named parameters; one of a plugin is written in `ops`."""
    if spec.own is not None:
        return Own(params, spec, ops)
    return (Adadelta if spec.name == "adadelta" else Adam)(params, spec)


class _ClippedOptimizer:
    """Clips, steps and saves; a subclass names its moments of each parameter and the kernel that updates them."""

    kinds: tuple[str, ...]

    def __init__(self, params: dict[str, flow.Tensor], spec: OptimizerSpec):
        self._differentiated = {name: tensor for name, tensor in params.items() if spec.is_differentiated(name)}
        self._params = params = {name: tensor for name, tensor in params.items() if spec.is_trained(name)}
        self._spec = spec
        self._steps = 0
        self._moments = {kind: {name: flow.zeros_like(tensor) for name, tensor in params.items()} for kind in self.kinds}
        self._operation = self._kernel()

    def step(self, learning_rate: float, loss: flow.Tensor) -> flow.Tensor:
        """Update the parameters by their gradients, and drop these; a missing one is 0. Returns the gradient's norm (1,), before
        it is clipped. Where that or the loss is not finite, everything stays as it is; what decides it stays on the device."""
        spec = self._spec
        self._steps += 1
        with flow.no_grad():
            norm, scale = self._norm_and_scale()
            # A difference of infinities, or with NaN, is NaN, which is not equal to 0.
            known = norm + loss
            skip = (known - known != 0.0).to(flow.int64)
            for name, tensor in self._params.items():
                if tensor.grad is None:  # a part that this step did not run
                    tensor.grad = flow.zeros_like(tensor)
                moments = [self._moments[kind][name] for kind in self.kinds]
                decay = spec.weight_decay if is_decayed(name) else 0.0
                self._update(tensor, scale, skip, moments, learning_rate * spec.rate_factor(name), decay)
            for tensor in self._differentiated.values():
                tensor.grad = None
        return norm

    def _norm_and_scale(self):
        """The norm of the gradient and min(1, limit / (norm + epsilon)) as tensors (1,), so that nobody waits for them.

        The squares have a second use: after a matrix product OneFlow's scalar CPU loops, `adam_update` among them, run five times
        slower until some vector operation has been executed (the upper halves of the AVX registers are left dirty)."""
        gradients = [tensor.grad for tensor in self._differentiated.values() if tensor.grad is not None]
        limit = self._spec.max_gradient_norm
        one = flow.ones(1, device=next(iter(self._params.values())).device) * 1.0
        if not gradients:
            return one * 0.0, one
        # Row by row first: a float32 accumulator is exact enough for a row and for the rows' sums, not for 12 million.
        sums = [(gradient * gradient).sum(dim=-1).sum() for gradient in gradients]
        norm = flow.sqrt(flow.stack(sums).sum()).reshape(1)
        return norm, one if limit is None else flow.clamp(limit / (norm + CLIP_EPSILON), max=1.0)

    def state(self) -> dict[str, np.ndarray]:
        """Moments by parameter, and the number of steps."""
        arrays = {"steps": np.asarray(self._steps, np.int64)}
        for kind, tensors in self._moments.items():
            for name, tensor in tensors.items():
                arrays[f"{kind}/{name}"] = tensor.numpy().copy()
        return arrays

    def state_layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and type of each array of `state`."""
        moments = {
            f"{kind}/{name}": (tuple(tensor.shape), np.dtype(np.float32))
            for kind, tensors in self._moments.items()
            for name, tensor in tensors.items()
        }
        return {"steps": ((), np.dtype(np.int64)), **moments}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go back to what `state` returned."""
        self._steps = int(state["steps"])
        for kind, tensors in self._moments.items():
            for name, tensor in tensors.items():
                tensor.copy_(flow.tensor(state[f"{kind}/{name}"], device=tensor.device))


def _built(kernel: str, *operands: str):
    builder = flow.stateful_op(kernel)
    for operand in operands:
        builder = builder.Input(operand)
    return builder.Build()


class Adam(_ClippedOptimizer):
    """AdamW and BertAdam, which is the same update without the bias corrections."""

    kinds = ("exp_avg", "exp_avg_sq")

    def _kernel(self):
        return _built("adam_update", "model", "model_diff", "scale_by_tensor", "skip_if", "m", "v")

    def _update(self, tensor, scale, skip, moments, rate, decay):
        spec, correct = self._spec, self._spec.name == "adamw"
        flow._C.dispatch_adam_update(
            self._operation,
            (tensor, tensor.grad, scale, skip, *moments),
            learning_rate=rate,
            weight_decay=decay,
            beta1=spec.beta1,
            beta2=spec.beta2,
            epsilon=spec.epsilon,
            # The kernel divides by these two whatever `do_bias_correction` says.
            bias_correction1=correction(spec.beta1, self._steps) if correct else 1.0,
            bias_correction2=correction(spec.beta2, self._steps) if correct else 1.0,
            do_bias_correction=correct,
            amsgrad=False,
        )


class Adadelta(_ClippedOptimizer):
    """Adadelta; its kernel takes no scale that is a tensor."""

    kinds = ("square_avg", "acc_delta")

    def _kernel(self):
        return _built("adadelta_update", "model", "model_diff", "skip_if", "square_avgs", "acc_deltas")

    def _update(self, tensor, scale, skip, moments, rate, decay):
        flow._C.dispatch_adadelta_update(
            self._operation,
            (tensor, tensor.grad * scale, skip, *moments),
            learning_rate=rate,
            l2=decay,
            rho=self._spec.beta2,
            epsilon=self._spec.epsilon,
            maximize=False,
        )


class Own(_ClippedOptimizer):
    """An optimizer of a plugin, parameter by parameter."""

    def __init__(self, params, spec, ops):
        self.kinds, self._ops = spec.own.kinds, ops
        super().__init__(params, spec)

    def _kernel(self):
        return None

    def _update(self, tensor, scale, skip, moments, rate, decay):
        now = {"rate": rate, "decay": decay, **self._spec.constants(), **self._spec.numbers(self._steps)}
        changed, state = self._spec.own.function(self._ops, tensor.detach(), tensor.grad * scale, tuple(moments), now)
        # What an update returns may be what it was given, so nothing is overwritten before all of it is there.
        taken = skip == 0
        for moment, new in zip(moments, [flow.where(taken, new, old) for old, new in zip(moments, state)]):
            moment.copy_(new)
        tensor.copy_(flow.where(taken, changed, tensor))
