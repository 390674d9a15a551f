"""AdamW and BertAdam by OneFlow's `adam_update` kernel, with clipping by the global norm; `core.optimizers` has the
formulas.

OneFlow's own `clip_grad_norm_` is not used: its norm adds up in one float32 accumulator, which is 1% off for a
vocabulary's embedding table.
"""

from __future__ import annotations

import numpy as np
import oneflow as flow

from ...core.optimizers import CLIP_EPSILON, OptimizerSpec, is_decayed


class Adam:
    """Both optimizers: BertAdam is the same update without the bias corrections."""

    def __init__(self, params: dict[str, flow.Tensor], spec: OptimizerSpec):
        self._differentiated = {name: tensor for name, tensor in params.items() if spec.is_differentiated(name)}
        self._params = params = {name: tensor for name, tensor in params.items() if spec.is_trained(name)}
        self._spec = spec
        self._bias_correction = {"adamw": True, "bert_adam": False}[spec.name]
        self._steps = 0
        self._means = {name: flow.zeros_like(tensor) for name, tensor in params.items()}
        self._squares = {name: flow.zeros_like(tensor) for name, tensor in params.items()}
        builder = flow.stateful_op("adam_update")
        for operand in ("model", "model_diff", "scale_by_tensor", "m", "v"):
            builder = builder.Input(operand)
        self._operation = builder.Build()

    def step(self, learning_rate: float) -> None:
        """Update the parameters by their gradients, and drop these; a missing one is 0."""
        spec = self._spec
        self._steps += 1
        constants = {
            "beta1": spec.beta1,
            "beta2": spec.beta2,
            "epsilon": spec.epsilon,
            # The kernel divides by these two whatever `do_bias_correction` says.
            "bias_correction1": 1.0 - spec.beta1**self._steps if self._bias_correction else 1.0,
            "bias_correction2": 1.0 - spec.beta2**self._steps if self._bias_correction else 1.0,
            "do_bias_correction": self._bias_correction,
            "amsgrad": False,
        }
        with flow.no_grad():
            scale = self._clip_scale()
            for name, tensor in self._params.items():
                if tensor.grad is None:  # a part that this step did not run
                    tensor.grad = flow.zeros_like(tensor)
                flow._C.dispatch_adam_update(
                    self._operation,
                    (tensor, tensor.grad, scale, self._means[name], self._squares[name]),
                    learning_rate=learning_rate * spec.rate_factor(name),
                    weight_decay=spec.weight_decay if is_decayed(name) else 0.0,
                    **constants,
                )
            for tensor in self._differentiated.values():
                tensor.grad = None

    def _clip_scale(self):
        """min(1, limit / (norm + epsilon)) as a tensor (1,), so that nobody waits for the norm."""
        gradients = [tensor.grad for tensor in self._differentiated.values() if tensor.grad is not None]
        limit = self._spec.max_gradient_norm
        if limit is None or not gradients:
            # Times 1.0: after a matrix product OneFlow's scalar CPU loops, `adam_update` among them, run five times slower
            # until some vector operation has been executed (the upper halves of the AVX registers are left dirty).
            # Below, the squares do that.
            return flow.ones(1, device=next(iter(self._params.values())).device) * 1.0
        # Row by row first: a float32 accumulator is exact enough for a row and for the rows' sums, not for 12 million.
        sums = [(gradient * gradient).sum(dim=-1).sum() for gradient in gradients]
        norm = flow.sqrt(flow.stack(sums).sum())
        return flow.clamp(limit / (norm + CLIP_EPSILON), max=1.0).reshape(1)

    def state(self) -> dict[str, np.ndarray]:
        """Moments by parameter, and the number of steps."""
        arrays = {"steps": np.asarray(self._steps, np.int64)}
        for kind, tensors in (("exp_avg", self._means), ("exp_avg_sq", self._squares)):
            for name, tensor in tensors.items():
                arrays[f"{kind}/{name}"] = tensor.numpy().copy()
        return arrays

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go back to what `state` returned."""
        self._steps = int(state["steps"])
        for kind, tensors in (("exp_avg", self._means), ("exp_avg_sq", self._squares)):
            for name, tensor in tensors.items():
                tensor.copy_(flow.tensor(state[f"{kind}/{name}"], device=tensor.device))
