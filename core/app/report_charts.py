"""Which series the report's charts show, and in which groups parameters and layers appear."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from markupsafe import Markup

from ..tolerances import tolerance
from .charts import Series, column_chart, line_chart, row_chart, scientific
from .compare import Pair
from .crosscheck_files import BackendRun, display_name

SLOTS = 6  # colours that report.html defines for backends and for pairs
Group = tuple[tuple[int, int, int], str]  # sort key and label


def draw_charts(runs: Sequence[BackendRun], pairs: Sequence[Pair]) -> dict[str, Markup]:
    """The charts by name: `loss`, `difference`, `hidden` and `gradient`."""
    names, labels = [display_name(run.backend) for run in runs], [pair_label(pair) for pair in pairs]
    states, groups = hidden_states(pairs), gradient_groups(pairs)
    losses = [
        Series(name, f"b{i % SLOTS}", list(run.losses), [x if math.isfinite(x) else None for x in run.losses.values()])
        for i, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    differences, hidden, gradients = [], [], []
    for i, (label, pair) in enumerate(zip(labels, pairs, strict=True)):
        slot, worst = f"p{i % SLOTS}", [worst_of_group(pair, group) for group in groups]
        differences.append(Series(label, slot, pair.loss_steps.tolist(), pair.loss_differences.tolist()))
        hidden.append(Series(label, slot, range(len(states)), [pair.hidden.get(state) for state in states]))
        values, parameters = [value for value, _ in worst], [name for _, name in worst]
        gradients.append(Series(label, slot, range(len(groups)), values, parameters))

    def described(what: str, figure: str) -> tuple[str, float]:
        largest = "; ".join(f"{pair_label(pair)} {scientific(pair.figures[figure])}" for pair in pairs)
        return f"Logarithmic chart: {what}. Largest: {largest}.", tolerance(figure).limit

    text, limit = described(
        "relative difference of the losses, pair by pair, over the steps", "loss_max_relative_difference"
    )
    charts = {
        "loss": line_chart("loss", _loss_text(runs, names), losses, "loss"),
        "difference": line_chart("difference", text, differences, "relative difference of the loss", limit=limit),
    }
    text, limit = described("relative difference of each hidden state, table below", "hidden_max_relative_difference")
    categories = [hidden_label(state) for state in states]
    charts["hidden"] = column_chart("hidden", text, categories, hidden, "relative difference", limit)
    text, limit = described(
        "largest relative gradient difference of each group of parameters, table below",
        "gradient_max_relative_difference",
    )
    categories = [label for _, label in groups]
    return charts | {"gradient": row_chart("gradient", text, categories, gradients, "relative difference", limit)}


def pair_label(pair: Pair) -> str:
    """`PyTorch – OneFlow`."""
    return f"{display_name(pair.a)} – {display_name(pair.b)}"


def hidden_states(pairs: Sequence[Pair]) -> list[int]:
    """The hidden states that any pair has."""
    return sorted({state for pair in pairs for state in pair.hidden})


def gradient_groups(pairs: Sequence[Pair]) -> list[Group]:
    """The groups of parameters that any pair has, from the embeddings up."""
    return sorted({parameter_group(name) for pair in pairs for name in pair.gradients})


def worst_of_group(pair: Pair, group: Group) -> tuple[float | None, str]:
    """The largest gradient difference in a group and its parameter; None where the pair has none of it."""
    return max(
        ((value, name) for name, value in pair.gradients.items() if parameter_group(name) == group), default=(None, "")
    )


def parameter_group(name: str) -> Group:
    """Sort key and label of the group that a parameter belongs to: `Layer 2 · attention` and the like."""
    layer = re.search(r"\blayer\.(\d+)\.", name)
    if layer:
        kind = 2 if "LayerNorm" in name else 0 if ".attention." in name else 1
        return (1, int(layer[1]), kind), f"Layer {layer[1]} · {('attention', 'feed-forward', 'norms')[kind]}"
    for position, part in ((0, "embeddings"), (3, "pooler"), (4, "classifier")):
        if re.search(rf"\b{part}\b", name):
            return (position, 0, 0), part.capitalize()
    return (2, 0, 0), re.split(r"[./]", name)[0]


def hidden_label(index: int) -> str:
    """Hidden state 0 is the embeddings; state i is what layer i - 1 (counted from 0, as in parameter names) returns."""
    return "0 · embeddings" if index == 0 else f"{index} · layer {index - 1}"


def _loss_text(runs: Sequence[BackendRun], names: list[str]) -> str:
    ends = [list(run.losses.values()) for run in runs]
    parts = [f"{name} from {values[0]:.4f} to {values[-1]:.4f}" for name, values in zip(names, ends, strict=True)]
    return f"Line chart: training loss over the steps. {'; '.join(parts)}."
