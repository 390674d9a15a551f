"""README tables that set backends side by side: a cross-check's figures, and the same run on each backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tables import markdown

FIGURES = {
    "initial_logits_max_difference": "first logits, largest difference",
    "hidden_max_relative_difference": "first hidden states, relative",
    "gradient_max_relative_difference": "first gradients, relative",
    "loss_max_relative_difference": "loss, relative, worst step",
    "prediction_agreement": "same predictions on dev after training",
}


def crosscheck_table(result: dict[str, Any]) -> str:
    """A row per figure and a column per pair of backends, from a `crosscheck.json`."""
    limits = {name: row["limit"] for name, row in result["tolerances"].items()}
    rows = []
    for name, title in FIGURES.items():
        share = name == "prediction_agreement"
        shown = [f"{pair[name]:.2%}" if share else f"{pair[name]:.1e}" for pair in result["pairs"]]
        rows.append([title, f"≥ {limits[name]:.0%}" if share else f"≤ {limits[name]:.0e}", *shown])
    pairs = [f"{pair['a']} – {pair['b']}" for pair in result["pairs"]]
    runs = list(result["backends"].values())
    steps = " and ".join(sorted({str(run["steps"]) for run in runs}))
    return (
        f"{markdown(['figure', 'limit', *pairs], rows)}\n\n"
        f"`{runs[0]['method']}` on {runs[0]['task']}, {steps} steps, {runs[0]['precision']}, dropout 0, on "
        f"{' and '.join(sorted({run['device'] for run in runs}))}. Verdict: {result['verdict']}."
    )


def crosschecks_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per recipe: its worst figures over all pairs of backends, from several `crosscheck.json`."""
    rows = []
    for result in sorted(results, key=lambda result: result["recipe"]["method"]):
        run = next(iter(result["backends"].values()))

        def worst(name: str, result=result) -> str:
            values = [pair[name] for pair in result["pairs"] if pair[name] is not None]
            return f"{max(values):.1e}" if values else "–"

        agreement = [pair["prediction_agreement"] for pair in result["pairs"] if pair["prediction_agreement"] is not None]
        same = f"{min(agreement):.2%}" if agreement else "–"
        figures = [worst(name) for name in list(FIGURES)[:4]]
        rows.append([f"`{result['recipe']['method']}`", run["task"], str(run["steps"]), *figures, same, result["verdict"]])
    first = results[0]
    backends = ", ".join(first["backends"])
    titles = ["first logits", "first hidden states", "first gradients", "loss, worst step", "same predictions"]
    return (
        f"{markdown(['recipe', 'data', 'steps', *titles, 'verdict'], rows)}\n\n"
        f"The worst of all pairs of {backends}; fp32, dropout 0, on cpu. All but the first figure are relative."
    )


def same_run_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per backend: the dev scores that the same recipe reached there."""
    metrics = list(results[0]["student"]["metrics"])
    rows = [
        [
            f"`{result['backend']}` {result['versions'][result['backend']]}",
            *(f"{100 * result['student']['metrics'][name]:.1f}" for name in metrics),
        ]
        for result in results
    ]
    first = results[0]
    return (
        f"{markdown(['backend', *(f'{name}, %' for name in metrics)], rows)}\n\n"
        f"`{first['method']}` on {first['task']}, {first['epochs']:g} epoch of {first['steps']:,} steps, "
        f"{first['precision']}, dropout on, seed {first['seed']}."
    )
