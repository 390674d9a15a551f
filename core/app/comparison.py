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

from ..class_metrics import is_class_metric
from ..entity_samples import sampled_entities, text_spans
from ..metrics import ENTITY_METRICS, KNOWN_METRICS, LOWER_IS_BETTER
from ..predictions import Predictions
from ..recipe import flat
from ..recipe_schema import Recipe
from ..significance import Values, difference, drawn_values, holm, mcnemar, resampled
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


def compare_finished(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """The comparison as plain data, ready for JSON. Raises CrossdistilError for runs of different tasks or dev rows."""
    check_alike(runs)
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
        "pairs": _pairs(groups),
        "notes": _notes(runs, groups),
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


def _pairs(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Every pair of groups whose runs have answers, metric by metric."""
    tested = [group for group in groups if all(run.predictions is not None for run in group.runs)]
    if len(tested) < 2:
        return []
    labels = tested[0].runs[0].predictions.labels
    own = [run.predictions.metrics for group in tested for run in group.runs]
    names = [name for name in own[0] if name in KNOWN_METRICS and all(name in metrics for metrics in own)]
    values = resampled(names, [[run.predictions.logits for run in group.runs] for group in tested], labels)
    return _judged(tested, values) + _entity_pairs([group for group in tested if _has_texts(group)])


def _has_texts(group: Group) -> bool:
    return all(run.predictions.texts is not None for run in group.runs)


def _entity_pairs(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The same of the scores of entities, for which texts are drawn and not words."""
    names = [name for name in ENTITY_METRICS if all(name in run.metrics for group in groups for run in group.runs)]
    if len(groups) < 2 or not names:
        return []
    answers = [[run.predictions for run in group.runs] for group in groups]
    counts = [[text_spans(found.logits, found.labels, found.texts, found.label_names) for found in side] for side in answers]
    samples = {name: [[sampled_entities(name, own) for own in side] for side in counts] for name in names}
    return _judged(groups, drawn_values(samples, len(counts[0][0])), "paired bootstrap of texts")


def _judged(tested: Sequence[Group], values: Values, test: str = "paired bootstrap") -> list[dict[str, Any]]:
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
    if all(len(side) == 1 for side in sides):
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


def _notes(runs: Sequence[ComparedRun], groups: Sequence[Group]) -> list[str]:
    """What is to know of a comparison; what holds of several runs, groups or metrics is said once."""
    untested = _by_reason((run.untested, run.name) for run in runs if run.untested)
    notes = [f"{names}: {reason}: not tested" for reason, names in untested.items()]
    of_entities = [run for run in runs if run.predictions is not None and any(name in run.metrics for name in ENTITY_METRICS)]
    endless = ", ".join(run.name for run in of_entities if run.predictions.texts is None)
    if endless:
        reason = "kept its answers without where a text ends, as runs of earlier versions: scores of entities are not tested"
        notes.append(f"{endless}: {reason}; the folder student of a run, with --data FOLDER, is")
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
    own = dict.fromkeys(name for run in runs if run.predictions for name in run.predictions.metrics)
    others = [name for name in own if name not in KNOWN_METRICS]
    kinds = _by_reason(("scores of one class" if is_class_metric(name) else "a plugin's", name) for name in others)
    notes += [f"{names}: {kind}, shown and not tested" for kind, names in kinds.items()]
    notes += _latency_notes(groups)
    several = any(name.endswith("_mismatched") for run in runs for name in run.metrics)
    return notes + (["scores on dev_mismatched are shown and not tested"] if several else [])


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
