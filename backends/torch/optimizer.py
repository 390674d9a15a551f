"""AdamW (PyTorch's fused kernel), Adadelta (PyTorch's) and BertAdam, with clipping by the global norm; `core.optimizers`
has the formulas."""

from __future__ import annotations

import inspect

import numpy as np
import torch

from ...core.optimizers import CLIP_EPSILON, OptimizerSpec, is_decayed


def make_optimizer(params: dict[str, torch.Tensor], spec: OptimizerSpec, ops=None):
    """The optimizer of that specification over named parameters; one of a plugin is written in `ops`."""
    if spec.own is not None:
        return Own(params, spec, ops)
    return {"adamw": AdamW, "bert_adam": BertAdam, "adadelta": Adadelta}[spec.name](params, spec)


class _WithoutCompiler:
    """A torch optimizer that does not make way for `torch.compile`, for which it would import all of the compiler: seconds, and
    100 MB. No compiled function of ours has an optimizer in it."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)


class _AdamW(_WithoutCompiler, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class _Adadelta(_WithoutCompiler, torch.optim.Adadelta):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adadelta.step))


class _ClippedOptimizer:
    """Clips, steps and saves; a subclass gives the torch optimizer, and names what that keeps of each parameter."""

    kinds: tuple[str, ...]

    def __init__(self, params, spec):
        self._differentiated = [p for name, p in params.items() if spec.is_differentiated(name)]
        self._params = {name: p for name, p in params.items() if spec.is_trained(name)}
        self._tables = {p: p.looked_up for p in self._differentiated if hasattr(p, "looked_up")}
        self._spec = spec
        groups: dict[tuple[float, float], list] = {}
        for name, p in self._params.items():
            decay = spec.weight_decay if is_decayed(name) else 0.0
            groups.setdefault((decay, spec.rate_factor(name)), []).append(p)
        self._inner = self._make(
            [{"params": p, "weight_decay": decay, "rate_factor": factor} for (decay, factor), p in groups.items()]
        )

    def step(self, learning_rate, loss, scaler):
        """Update the parameters by their gradients, and drop these; returns the gradient's norm, before it is clipped. Where that
        or the loss is not finite, the parameters stay as they are; what decides it stays on the device."""
        if scaler is not None:
            scaler.unscale_(self._inner)
        settled = {p: table.settle() for p, table in self._tables.items()}
        for p in self._params.values():
            # A part that this step did not run: its moments still decay, as on every backend.
            if p.grad is None and p not in self._tables:
                p.grad = torch.zeros_like(p)
        norm = self._clip(self._spec.max_gradient_norm, settled)
        for table in self._tables.values():
            table.spread()
        for group in self._inner.param_groups:
            group["lr"] = learning_rate * group["rate_factor"]
        if scaler is None:
            self._step_where_finite(torch.isfinite(norm + loss))
        else:  # which finds out by itself
            scaler.step(self._inner)
            scaler.update()
        for p in self._differentiated:
            p.grad = None
        for table in self._tables.values():
            table.forget()
        return norm

    def _clip(self, limit, settled):
        gradients = [p.grad if settled.get(p) is None else settled[p] for p in self._differentiated]
        gradients = [gradient for gradient in gradients if gradient is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if limit is not None:
            torch._foreach_mul_(gradients, torch.clamp(limit / (norm + CLIP_EPSILON), max=1.0))
        return norm

    def _step_where_finite(self, finite):
        if finite.device.type == "cpu":  # where asking waits for nothing
            if finite:
                self._inner.step()
        elif self._inner.defaults.get("fused"):
            self._inner.found_inf = (~finite).float()  # the kernel leaves everything as it is
            self._inner.step()
        else:
            before = [p.detach().clone() for p in self._params.values()]
            self._inner.step()
            with torch.no_grad():
                for p, old in zip(self._params.values(), before):
                    p.copy_(torch.where(finite, p, old))

    def state(self):
        arrays = {}
        for name, tensor in self._params.items():
            # Without a step (a loss scale that was too large so far) there is nothing yet, which is as good as zeros.
            found = self._inner.state.get(tensor, {})
            for key in self.kinds:
                shape = () if key == "step" else tensor.shape
                value = found[key].detach().cpu().numpy().copy() if key in found else np.zeros(shape, np.float32)
                arrays[f"{key}/{name}"] = value
        return arrays

    def state_layout(self):
        kind = np.dtype(np.float32)
        return {
            f"{key}/{name}": (() if key == "step" else tuple(tensor.shape), kind)
            for name, tensor in self._params.items()
            for key in self.kinds
        }

    def restore(self, state):
        self._inner.state.clear()
        for key, array in state.items():
            kind, _, name = key.partition("/")
            if name in self._params:
                parameter = self._params[name]
                # AdamW keeps its step counter with the parameters when it is fused.
                self._inner.state[parameter][kind] = torch.tensor(array, device=parameter.device)


class AdamW(_ClippedOptimizer):
    """torch.optim.AdamW, fused."""

    kinds = ("step", "exp_avg", "exp_avg_sq")

    def _make(self, groups):
        spec = self._spec
        return _AdamW(groups, lr=0.0, betas=(spec.beta1, spec.beta2), eps=spec.epsilon, fused=True)


class Adadelta(_ClippedOptimizer):
    """torch.optim.Adadelta over all tensors at once."""

    kinds = ("step", "square_avg", "acc_delta")

    def _make(self, groups):
        spec = self._spec
        return _Adadelta(groups, lr=0.0, rho=spec.beta2, eps=spec.epsilon, foreach=True)


class BertAdam(_ClippedOptimizer):
    """Adam without bias correction, its decay added to the update, as Google's BERT trains."""

    kinds = ("exp_avg", "exp_avg_sq")

    def _make(self, groups):
        return _BertAdam(groups, self._spec)


class _BertAdam(_WithoutCompiler, torch.optim.Optimizer):
    def __init__(self, groups, spec):
        self._spec = spec
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self):
        spec = self._spec
        for group in self.param_groups:
            params = group["params"]
            gradients = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            means = [self.state[p]["exp_avg"] for p in params]
            squares = [self.state[p]["exp_avg_sq"] for p in params]
            torch._foreach_lerp_(means, gradients, 1.0 - spec.beta1)
            torch._foreach_mul_(squares, spec.beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - spec.beta2)
            updates = torch._foreach_sqrt(squares)
            torch._foreach_add_(updates, spec.epsilon)
            updates = torch._foreach_div(means, updates)
            if group["weight_decay"]:
                torch._foreach_add_(updates, params, alpha=group["weight_decay"])
            torch._foreach_add_(params, updates, alpha=-group["lr"])


class Own(_ClippedOptimizer):
    """An optimizer of a plugin, parameter by parameter."""

    def __init__(self, params, spec, ops):
        self.kinds, self._ops = ("step", *spec.own.kinds), ops
        super().__init__(params, spec)

    def _make(self, groups):
        return _Own(groups, self._spec, self._ops)


class _Own(_WithoutCompiler, torch.optim.Optimizer):
    def __init__(self, groups, spec, ops):
        self._spec, self._ops = spec, ops
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self):
        own = self._spec.own
        for group in self.param_groups:
            for p in group["params"]:
                if not self.state[p]:
                    self.state[p] = {"step": torch.zeros(())} | {kind: torch.zeros_like(p) for kind in own.kinds}
                kept = self.state[p]
                kept["step"] += 1
                now = {"rate": group["lr"], "decay": group["weight_decay"], **self._spec.constants()}
                now |= self._spec.numbers(int(kept["step"]))
                # What an update returns may be what it was given, so nothing is overwritten before all of it is there.
                changed, state = own.function(self._ops, p.detach(), p.grad, tuple(kept[kind] for kind in own.kinds), now)
                for kind, tensor in zip(own.kinds, state):
                    kept[kind] = tensor.clone()
                p.copy_(changed)
