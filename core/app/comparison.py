"""Several finished runs side by side: what they score and cost, in what their recipes differ, and which differences are real.

Runs whose recipes are equal but for the seed are one group. Each pair of groups is tested on the same dev examples, and one is
called better only where the p-value, corrected for the number of pairs, is below `ALPHA`.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ..answer_samples import drawn_count, known_scores, score_samples
from ..metrics import LOWER_IS_BETTER, is_known_metric
from ..predictions import Predictions
from ..recipe import flat
from ..recipe_schema import Recipe
from ..significance import Values, difference, drawn_values, holm, mcnemar
from .chosen_scores import can_be_tested, with_chosen
from .compared_runs import ComparedRun, check_alike
from .run_latency import STUDENT_NAME

ALPHA = 0.05
_RIGHT = ("accuracy", "exact_match")
"""Metrics that are a share of right answers, for which there is an exact test."""
_NO_SETTING = ("seed", "notes", "description", "log")
_CIRCUMSTANCES = ("backend", "device", "precision", "processes")
MEASURES = ("steps", "epochs", "wall_seconds", "tokens_per_second")


@dataclass(frozen=True)
class Group:
    """Runs of one recipe with different seeds."""

    letter: str
    runs: tuple[ComparedRun, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """Every key of the recipe but the seed, and what it ran on; empty of a model folder."""
        return _settings(self.runs[0])


def compare_finished(runs: Sequence[ComparedRun], chosen: Sequence[str] = ()) -> dict[str, Any]:
    """The comparison as plain data, ready for JSON, by the scores that the runs have or by those that are `chosen`. A score of
    one class or type is tested only where it is chosen: of many some differ by chance. Raises CrossdistilError for runs of
    different tasks or dev rows, and a score that there is not."""
    check_alike(runs)
    if chosen:
        runs = with_chosen(runs, chosen)
    groups = _grouped(runs)
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    answered = [run.predictions for run in runs if run.predictions is not None]
    return {
        "task": next((run.task for run in runs if run.task), None),
        "dev": _dev(answered) if answered else None,
        "metrics": metrics,
        "runs": [_run_entry(run, group.letter) for group in groups for run in group.runs],
        "groups": [_group_entry(group, metrics) for group in groups],
        "differences": _differences(groups),
        "pairs": _pairs(groups, chosen or [name for name in metrics if "/" not in name]),
        "notes": _notes(runs, groups, chosen),
    }


def _dev(answered: Sequence[Predictions]) -> dict[str, Any]:
    """Of what the answers are; of words, which are the examples, also how many texts they make up."""
    texts = next((found.texts for found in answered if found.texts is not None), None)
    about = {"examples": len(answered[0].labels), "rows": answered[0].rows}
    return about if texts is None else about | {"texts": len(texts.counts)}


def _settings(run: ComparedRun) -> dict[str, Any]:
    if run.recipe is None:
        return {}
    found = flat({key: value for key, value in _completed(run.recipe).items() if key not in _NO_SETTING})
    return found | {key: run.result[key] for key in _CIRCUMSTANCES if key in run.result}


def _completed(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe with the keys that it does not have because an earlier version wrote it; as it is where it needs a plugin, which
    is not loaded for a comparison, or is none of this version's."""
    try:
        return Recipe.model_validate(recipe).resolved()
    except ValidationError:
        return recipe


def _grouped(runs: Sequence[ComparedRun]) -> list[Group]:
    """Runs of equal settings together; a seed that is there again opens a group of its own, to be compared with the first."""
    found: dict[tuple[str, int], list[ComparedRun]] = {}
    times: dict[tuple[str, Any], int] = {}
    for index, run in enumerate(runs):
        key = f"model {index}" if run.recipe is None else json.dumps(_settings(run), sort_keys=True, default=str)
        times[key, run.seed] = times.get((key, run.seed), 0) + 1
        found.setdefault((key, times[key, run.seed]), []).append(run)
    return [Group(_letters(number), tuple(own)) for number, own in enumerate(found.values())]


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    first, last = divmod(number, 26)
    return (_letters(first - 1) if first else "") + chr(ord("A") + last)


def _run_entry(run: ComparedRun, letter: str) -> dict[str, Any]:
    known = {key: run.result.get(key) for key in (*MEASURES, *_CIRCUMSTANCES, "versions")}
    about = {"name": run.name, "group": letter, "seed": run.seed, "method": (run.recipe or {}).get("method")}
    return about | {"metrics": run.metrics, "parameters": run.parameters} | known | {"latency_milliseconds": _milliseconds(run)}


def _group_entry(group: Group, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "group": group.letter,
        "runs": [run.name for run in group.runs],
        "seeds": [run.seed for run in group.runs if run.seed is not None],
        "metrics": {name: _spread([run.metrics.get(name) for run in group.runs]) for name in metrics},
        "parameters": group.runs[0].parameters,
        "latency_milliseconds": _spread([_milliseconds(run) for run in group.runs]),
    } | {key: _spread([run.result.get(key) for run in group.runs]) for key in MEASURES}


def _milliseconds(run: ComparedRun) -> float | None:
    return None if run.latency is None else run.latency.milliseconds[STUDENT_NAME]


def _spread(values: Sequence[float | None]) -> dict[str, float | None] | None:
    """Mean and sample standard deviation, which one value has not; None where a run lacks the value."""
    if not values or any(value is None for value in values):
        return None
    return {"mean": statistics.fmean(values), "deviation": statistics.stdev(values) if len(values) > 1 else None}


def _differences(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Key -> letter -> value, of the keys in which the recipes differ; a letter is left out where its recipe has no such key,
    which is as good as null."""
    settings = {group.letter: group.settings for group in groups if group.settings}
    keys = dict.fromkeys(key for own in settings.values() for key in own)
    found = {key: {letter: own[key] for letter, own in settings.items() if key in own} for key in keys}
    return {
        key: values
        for key, values in found.items()
        if len({json.dumps(values.get(letter), default=str) for letter in settings}) > 1
    }


def _pairs(groups: Sequence[Group], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Every pair of groups whose runs have answers, metric by metric."""
    tested = [group for group in groups if all(map(can_be_tested, group.runs))]
    if len(tested) < 2:
        return []
    answers = [[run.predictions for run in group.runs] for group in tested]
    known, scored = known_scores(answers[0][0]), [run.metrics for group in tested for run in group.runs]
    names = [name for name in metrics if name in known and all(name in own for own in scored)]
    samples = [[score_samples(names, found) for found in side] for side in answers]
    by_name = {name: [[own[name] for own in side] for side in samples] for name in names}
    values = drawn_values(by_name, drawn_count(answers[0][0]))
    return _judged(tested, values, "paired bootstrap" + (" of texts" if answers[0][0].texts is not None else ""))


def _judged(tested: Sequence[Group], values: Values, test: str) -> list[dict[str, Any]]:
    """The pairs of groups by the `values` of each, metric by metric, with p-values corrected for the number of pairs."""
    found = []
    for name in values:
        numbers = itertools.combinations(range(len(tested)), 2)
        pairs = [_pair(name, tested, first, second, values, test) for first, second in numbers]
        for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
            pair["p_corrected"] = p
            pair["better"] = _better(pair) if p < ALPHA else None
        found += pairs
    return found


def _pair(metric: str, groups: Sequence[Group], first: int, second: int, values: Values, test: str) -> dict[str, Any]:
    found = difference(values[metric][first], values[metric][second])
    sides = [groups[index].runs for index in (first, second)]
    pair = {"a": groups[first].letter, "b": groups[second].letter, "metric": metric, "difference": found.value}
    pair |= {"low": found.low, "high": found.high, "p": found.p, "test": test}
    # Words of one text are no examples of their own, which the exact test takes them for.
    if all(len(side) == 1 and side[0].predictions.texts is None for side in sides):
        rights = [side[0].predictions.right for side in sides]
        if rights[0] is not None:
            counts = {"only_a_right": int((rights[0] & ~rights[1]).sum()), "only_b_right": int((rights[1] & ~rights[0]).sum())}
            pair |= counts
            if metric in _RIGHT:
                pair |= {"p": mcnemar(*rights), "test": "exact McNemar"}
    pair["same"] = len(sides[0]) == len(sides[1]) and all(
        (a.predictions.logits == b.predictions.logits).all() for a, b in zip(*sides, strict=True)
    )
    return pair


def _better(pair: dict[str, Any]) -> str | None:
    if pair["difference"] == 0:
        return None
    above = pair["difference"] > 0
    return pair["a"] if above != (pair["metric"] in LOWER_IS_BETTER) else pair["b"]


def _notes(runs: Sequence[ComparedRun], groups: Sequence[Group], chosen: Sequence[str]) -> list[str]:
    """What is to know of a comparison; what holds of several runs, groups or metrics is said once."""
    untested = _by_reason((run.untested, run.name) for run in runs if run.untested)
    notes = [f"{names}: {reason}: not tested" for reason, names in untested.items()]
    endless = ", ".join(run.name for run in runs if run.predictions is not None and not can_be_tested(run))
    if endless:
        reason = "kept its answers without where a text ends, as runs of earlier versions: labels of words are not tested"
        notes.append(f"{endless}: {reason}; the folder student of a run, with --data FOLDER, is")
    replaced = ", ".join(run.name for run in runs if run.is_replaced)
    if replaced:
        notes.append(
            f"{replaced}: the weights in the folder student are not those that the run ended with, whose scores and answers "
            "these are; the folder itself, with --data FOLDER, answers anew"
        )
    trained = [group for group in groups if group.settings]
    if len(trained) > 1 and any(len(group.runs) == 1 for group in trained):
        single = ", ".join(group.letter for group in trained if len(group.runs) == 1)
        notes.append(
            f"{single}: one seed: a difference is one of these students; whether the recipe is better takes several seeds of both"
        )
    firsts: dict[str, str] = {}
    for first, second in itertools.combinations(trained, 2):
        if first.settings == second.settings and first.runs[0].seed == second.runs[0].seed:
            firsts.setdefault(second.letter, first.letter)
    again = _by_reason((first, second) for second, first in firsts.items())
    notes += [f"{names}: the recipe of {first} with the same seed again" for first, names in again.items()]
    notes += _untested_scores(runs, chosen)
    notes += _latency_notes(groups)
    several = any(name.endswith("_mismatched") for run in runs for name in run.metrics)
    return notes + (["scores on dev_mismatched are shown and not tested"] if several else [])


def _untested_scores(runs: Sequence[ComparedRun], chosen: Sequence[str]) -> list[str]:
    """What is said of scores that are shown and not tested though the runs have answers."""
    answers = next((run.predictions for run in runs if can_be_tested(run)), None)
    if answers is None:
        return []
    known, found = known_scores(answers), []
    for name in dict.fromkeys(name for run in runs if run.predictions is not None for name in run.metrics):
        if name.endswith("_mismatched") or name in chosen and name in known:
            continue
        if name not in known:
            found.append(("shown and not tested" if is_known_metric(name) else "a plugin's, shown and not tested", name))
        elif "/" in name:
            found.append(("scores of one class or type: shown, and tested only where --metric names one", name))
    return [f"{names}: {reason}" for reason, names in _by_reason(found).items()]


def _by_reason(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Reason -> the names that it holds of, with commas between them."""
    found: dict[str, list[str]] = {}
    for reason, name in pairs:
        if name not in found.setdefault(reason, []):
            found[reason].append(name)
    return {reason: ", ".join(names) for reason, names in found.items()}


def _latency_notes(groups: Sequence[Group]) -> list[str]:
    """On what the times were measured, since only times of one kind compare."""
    timed = [(run.latency.conditions, group.letter) for group in groups for run in group.runs if run.latency is not None]
    found = _by_reason(timed)
    if not found:
        return []
    if len(found) == 1:
        return [f"ms a text: the median for one text of dev, as each run measured it ({next(iter(found))})"]
    each = "; ".join(f"{letters}: {conditions}" for conditions, letters in found.items())
    return [f"ms a text: not measured alike, so they do not compare ({each}); crossdistil latency measures side by side"]
