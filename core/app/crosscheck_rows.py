"""The examples of dev that the students of a cross-check answer differently, with their texts: for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import CrossdistilError
from ..predictions import Predictions, read_predictions
from ..registered import Registered
from .crosscheck_files import BackendRun, display_name
from .dev_texts import dev_texts
from .pairs import Pair
from .run_answers import answers_beside


def differing_rows(runs: Sequence[BackendRun], pairs: Sequence[Pair], registered: Registered) -> dict[str, Any]:
    """`rows` for the page, the answers that are farthest apart first, `names` of the students that answered, `count` of all such
    examples, and `note`, why texts or rows are missing."""
    own = [pair.disagreements for pair in pairs if pair.disagreements is not None and len(pair.disagreements)]
    content: dict[str, Any] = {"rows": [], "names": [], "count": 0, "note": ""}
    if not own:
        return content
    rows = np.unique(np.concatenate(own))
    content["count"] = len(rows)
    found, content["note"] = _answers(runs)
    if found:
        first = next(iter(found.values()))
        examples, content["note"] = dev_texts(runs[0].recipe, first.rows, registered)
        content |= {"names": list(found), "rows": answers_beside(list(found.values()), rows, examples)}
    return content


def _answers(runs: Sequence[BackendRun]) -> tuple[dict[str, Predictions], str]:
    """What each run's student answered, and to what; or nothing, and why."""
    found: dict[str, Predictions] = {}
    try:
        for run in runs:
            own = read_predictions(run.folder, run.result)
            if own is None:
                return {}, f"{display_name(run.name)} kept no labels of dev, so the examples are not shown"
            first = next(iter(found.values()), own)
            if own.rows != first.rows or own.logits.shape != first.logits.shape or not np.isfinite(own.logits).all():
                return {}, f"{display_name(run.name)} has no answers to the same examples, so they are not shown"
            found[display_name(run.name)] = own
    except CrossdistilError as error:
        return {}, str(error).splitlines()[0]
    return found, ""
