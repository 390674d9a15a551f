"""Tables that set backends side by side: a cross-check's figures, and the same run on each backend."""

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


def _title(result: dict[str, Any]) -> str:
    """The recipe, and the preset where one is kept beside the result."""
    preset = result.get("preset")
    return result["recipe"]["method"] + (f" --preset {preset}" if preset else "")


def crosschecks_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per recipe: its worst figures over all pairs of backends, from several `crosscheck.json`; below, what was found out
    about a row and written into its result as a `note`."""
    rows = []
    for result in sorted(results, key=_title):
        run = next(iter(result["backends"].values()))

        def worst(name: str, result=result) -> str:
            values = [pair[name] for pair in result["pairs"] if pair.get(name) is not None]
            return f"{max(values):.1e}" if values else "–"

        agreement = [pair["prediction_agreement"] for pair in result["pairs"] if pair["prediction_agreement"] is not None]
        same = f"{min(agreement):.2%}" if agreement else "–"
        figures = [worst(name) for name in list(FIGURES)[:4]]
        rows.append([f"`{_title(result)}`", run["task"], str(run["steps"]), *figures, same, result["verdict"]])
    first = results[0]
    backends = ", ".join(first["backends"])
    titles = ["first logits", "first hidden states", "first gradients", "loss, worst step", "same predictions"]
    return (
        f"{markdown(['recipe', 'data', 'steps', *titles, 'verdict'], rows)}\n\n"
        f"The worst of all pairs of {backends}; fp32, dropout 0, on cpu. All but the first figure are relative."
        + "".join(f"\n\n`{_title(result)}`: {result['note']}" for result in results if "note" in result)
    )


def processes_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per recipe and backend: how far its runs with several processes are from its run with the fewest, from the
    `crosscheck.json` of cross-checks with several numbers of devices."""
    rows, counts = [], set()
    for result in sorted(results, key=lambda result: result["recipe"]["method"]):
        runs = result["backends"]
        counts |= {run["processes"] for run in runs.values()}
        for backend in dict.fromkeys(run["backend"] for run in runs.values()):
            own = {name for name, run in runs.items() if run["backend"] == backend}
            pairs = [pair for pair in result["pairs"] if {pair["a"], pair["b"]} <= own]
            losses, weights = (max(pair[f"{what}_max_relative_difference"] for pair in pairs) for what in ("loss", "weights"))
            agreement = [pair["prediction_agreement"] for pair in pairs if pair["prediction_agreement"] is not None]
            run = runs[pairs[0]["a"]]
            same = f"{min(agreement):.2%}" if agreement else "–"
            verdict = "agree" if all(pair["agree"] for pair in pairs) else "differ"
            row = [
                f"`{result['recipe']['method']}`",
                f"`{backend}`",
                str(run["steps"]),
                f"{losses:.1e}",
                f"{weights:.1e}",
                same,
                verdict,
            ]
            rows.append(row)
    limits = results[0]["process_tolerances"]
    loss, weight = (limits[f"{what}_max_relative_difference"]["limit"] for what in ("loss", "weights"))
    titles = ["loss, worst step", "final weights, worst tensor", "same predictions", "verdict"]
    numbers = " and ".join(map(str, sorted(counts)))
    return (
        f"{markdown(['recipe', 'backend', 'steps', *titles], rows)}\n\n"
        f"Each backend with {numbers} processes, relative differences between its own runs; limits {loss:.0e} for the loss and "
        f"{weight:.0e} for the weights. fp32, dropout 0, on {' and '.join(sorted({run['device'] for run in runs.values()}))}."
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
