"""Which series the report's charts show, and in which groups parameters and layers appear."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from markupsafe import Markup

from .chart_axes import scientific
from .charts import Series, column_chart, line_chart, row_chart
from .crosscheck_files import BackendRun, display_name
from .pairs import Pair, limit_of

SLOTS = 6  # colours that report.html defines for backends and for pairs
Group = tuple[tuple[int, int, int], str]  # sort key and label


def draw_charts(runs: Sequence[BackendRun], pairs: Sequence[Pair]) -> dict[str, Markup | None]:
    """The charts by name: `loss`; `difference`, `hidden` and `gradient` of pairs of backends, `processes` of pairs of one
    backend, None where there are no such pairs."""
    charts: dict[str, Markup | None] = dict.fromkeys(("difference", "hidden", "gradient", "processes"))
    charts["loss"] = _loss_chart(runs)
    between, within = ([pair for pair in pairs if pair.one_backend is one] for one in (False, True))
    if between:
        charts["difference"] = _difference_chart("difference", between)
        charts |= _first_step_charts(between)
    if within:
        charts["processes"] = _difference_chart("processes", within)
    return charts


def _loss_chart(runs: Sequence[BackendRun]) -> Markup:
    names, colours = [display_name(run.name) for run in runs], run_colours(runs)
    losses = [
        Series(name, slot, list(run.losses), [x if math.isfinite(x) else None for x in run.losses.values()])
        for name, slot, run in zip(names, colours, runs, strict=True)
    ]
    return line_chart("loss", _loss_text(runs, names), losses, "loss, weighted sum of the terms")


def run_colours(runs: Sequence[BackendRun]) -> list[str]:
    """The colour class of each run: its backend's."""
    backends = list(dict.fromkeys(run.backend for run in runs))
    return [f"b{backends.index(run.backend) % SLOTS}" for run in runs]


def pair_colours(pairs: Sequence[Pair]) -> list[str]:
    """The colour class of each pair, counted among those that are in one chart with it."""
    found, seen = [], {False: 0, True: 0}
    for pair in pairs:
        found.append(f"p{seen[pair.one_backend] % SLOTS}")
        seen[pair.one_backend] += 1
    return found


def _difference_chart(ident: str, pairs: Sequence[Pair]) -> Markup:
    series = [
        Series(pair_label(pair), slot, pair.loss_steps.tolist(), pair.loss_differences.tolist())
        for slot, pair in zip(pair_colours(pairs), pairs)
    ]
    text, limit = _described(
        pairs, "relative difference of the losses, pair by pair, over the steps", "loss_max_relative_difference"
    )
    return line_chart(ident, text, series, "relative difference of the loss, no unit", limit=limit)


def _first_step_charts(pairs: Sequence[Pair]) -> dict[str, Markup]:
    states, groups = hidden_states(pairs), gradient_groups(pairs)
    hidden, gradients = [], []
    for slot, pair in zip(pair_colours(pairs), pairs):
        label, worst = pair_label(pair), [worst_of_group(pair, group) for group in groups]
        hidden.append(Series(label, slot, range(len(states)), [pair.hidden.get(state) for state in states]))
        values, parameters = [value for value, _ in worst], [name for _, name in worst]
        gradients.append(Series(label, slot, range(len(groups)), values, parameters))
    text, limit = _described(pairs, "relative difference of each hidden state, table below", "hidden_max_relative_difference")
    categories = [hidden_label(state) for state in states]
    charts = {"hidden": column_chart("hidden", text, categories, hidden, "relative difference, no unit", limit)}
    what = "largest relative gradient difference of each group of parameters, table below"
    text, limit = _described(pairs, what, "gradient_max_relative_difference")
    categories = [label for _, label in groups]
    return charts | {"gradient": row_chart("gradient", text, categories, gradients, "relative difference, no unit", limit)}


def _described(pairs: Sequence[Pair], what: str, figure: str) -> tuple[str, float]:
    """What a chart says to those who do not see it, and its limit."""
    largest = "; ".join(f"{pair_label(pair)} {scientific(pair.figures[figure])}" for pair in pairs)
    return f"Logarithmic chart: {what}. Largest: {largest}.", limit_of(pairs[0], figure)


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
