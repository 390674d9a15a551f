"""Kernels of a CPU that differ in their results, be it in the last bits: which a process uses, and how a run that is resumed
goes on with those of the process that started it.
"""

from __future__ import annotations

from . import dropout, linear
from .dropout import DropoutMasks


def used(masks: DropoutMasks, precision: str) -> dict[str, str]:
    """What for -> which, on a CPU: linear maps have a choice in float32, dropout outside compiled steps."""
    found = {"linear": linear.choose()} if precision == "fp32" else {}
    return found | ({"dropout": dropout.OWN} if masks.own else {})


def keep(kernels: dict[str, str], masks: DropoutMasks, recorded: dict[str, str]) -> list[str]:
    """Make those that are `recorded` the `kernels` of this process; returns a line for each that are not its own ones."""
    return _keep_linear(kernels, recorded) + _keep_dropout(kernels, masks, recorded)


def _keep_linear(kernels, recorded):
    started, now = recorded.get("linear"), kernels.get("linear")
    if started not in linear.CHOICES or now is None or started == now:
        return []
    if linear.asked() is None:
        kernels["linear"] = linear.choose(started)
    if kernels["linear"] == started:
        return [f"linear maps: by {started}, as in the process that started the run; this one would take {now}"]
    why = f"{linear.SETTING} says" if linear.asked() else "oneDNN's operator is missing here"
    return [f"linear maps: by {now}, since {why}; the run was started with {started}, so the last bits differ"]


def _keep_dropout(kernels, masks, recorded):
    if kernels.get("dropout") != dropout.OWN or recorded.get("dropout") == dropout.OWN:
        return []
    kernels["dropout"], masks.own = dropout.PYTORCH, False  # a state of an earlier version does not say so
    return ["dropout: by PyTorch's own masks, as in the process that started the run; a new run has others, which are faster"]
