"""The scores by which runs are compared: their own, or chosen ones (`--metric`), which are counted from kept answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..answer_samples import drawn_count, known_scores, score_samples
from ..errors import CrossdistilError, did_you_mean
from ..metrics import ENTITY_METRICS, WORD_ACCURACY
from ..predictions import Predictions
from .compared_runs import ComparedRun


def of_words(run: ComparedRun) -> bool:
    """Whether a run was scored on labels of words, also one of an earlier version, which did not keep where a text ends."""
    return any(name.partition("/")[0] in (*ENTITY_METRICS, WORD_ACCURACY) for name in run.metrics)


def can_be_tested(run: ComparedRun) -> bool:
    """Whether a run has answers, and of words also the texts that they make up."""
    found = run.predictions
    return found is not None and (found.texts is not None or not of_words(run))


def with_chosen(runs: Sequence[ComparedRun], names: Sequence[str]) -> list[ComparedRun]:
    """Runs with these scores alone, of which those that a run does not have are counted from its answers. Raises
    CrossdistilError for one that none of them has."""
    names = list(dict.fromkeys(names))
    scored = {name for run in runs for name in run.metrics}
    answers = next((run.predictions for run in runs if can_be_tested(run)), None)
    countable = () if answers is None else known_scores(answers)
    for name in names:
        if name not in scored and name not in countable:
            raise CrossdistilError(f"--metric {name}: {_unknown(name, dict.fromkeys((*sorted(scored), *countable)))}")
    return [replace(run, metrics=_scores(run, names, countable)) for run in runs]


def _unknown(name: str, known: Sequence[str]) -> str:
    """What is wrong with the name of a score, and which there are."""
    metric, slash, of = name.partition("/")
    single = [each.partition("/")[2] for each in known if each.startswith(f"{metric}/")]
    if slash and single:
        return f"the task has no '{of}'{did_you_mean(of, single) or ';'} {metric}/ is there of {', '.join(single)}"
    usual = [each for each in known if "/" not in each]
    ones = [each for each in known if "/" in each]
    of_one = f", and of one class or type as {ones[0]}" if ones else ""
    return f"no such score{did_you_mean(name, known) or ';'} there are {', '.join(usual)}{of_one}"


def _scores(run: ComparedRun, names: Sequence[str], countable: Sequence[str]) -> dict[str, float]:
    missing = [name for name in names if name not in run.metrics and name in countable and can_be_tested(run)]
    found = run.metrics | (_counted(missing, run.predictions) if missing else {})
    return {name: found[name] for name in names if name in found}


def _counted(names: Sequence[str], answers: Predictions) -> dict[str, float]:
    once = np.ones((1, drawn_count(answers)))
    return {name: float(sample(once)[0]) for name, sample in score_samples(names, answers).items()}
