"""A search as JSON, as Markdown and as a page: the front of score against latency or size, and each trial."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import write_text
from ..shown import counted
from .charts import Series, line_chart, marker
from .comparison_view import count_text, is_number, score_text, spread_text
from .pages import page
from .scatter_charts import Point, scatter_chart
from .search import BEST, Search, value_text
from .search_results import counts_text, results
from .search_study import best_of

RESULTS, MARKDOWN, PAGE = "search.json", "report.md", "report.html"
_AXES = {"latency_ms": "latency, ms a text", "parameters": "parameters of the student, millions"}
_MOST_CURVES, _MOST_SLICES = 8, 12
_KINDS = {"best": ("b1", 2), "default": ("b0", 1), "trial": ("quiet", 0)}
"""Colour class and shape of a marker."""


def write_results(search: Search) -> tuple[Path, str]:
    """Write what was found into the search's folder, and the recipe of the best; returns the path of the page, and in a sentence
    or two what was found."""
    found = results(search)
    write_text(search.folder / RESULTS, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    write_text(search.folder / MARKDOWN, as_markdown(found))
    write_text(search.folder / PAGE, search_page(found))
    best = best_of(search.study.records(), search.settings.higher)
    if best is not None:
        search.recipe_of(best).write(search.folder / BEST)
    return search.folder / PAGE, f"{found['headline']} {found['remark']}".strip()


def search_page(found: dict[str, Any]) -> str:
    """The page of a search; `found` is the content of search.json."""
    charts = [chart for chart in (_front(found), _curves(found), *_slices(found)) if chart is not None]
    tables = [_seed_table(found), _candidates(found), _trial_table(found)]
    legend = [{"name": _label(found, name), "slot": slot, "path": marker(kind, 8, 8)} for name, (slot, kind) in _KINDS.items()]
    tiles = _tiles(found)
    content = {"found": found, "charts": charts, "tables": [table for table in tables if table], "legend": legend, "tiles": tiles}
    return page("search.html", content, {})


def as_markdown(found: dict[str, Any]) -> str:
    """The same tables for a document."""
    parts = [f"# Search of {found['search']} on {found['task']}", f"{found['headline']} {found['remark']}".strip()]
    parts.append(_conditions(found))
    for table in (_seed_table(found), _candidates(found), _trial_table(found)):
        if table:
            lines = [table["heading"], ["---"] * len(table["heading"]), *table["rows"]]
            parts += [f"## {table['title']}", "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    for sign in "\\`*_|<[":
        text = text.replace(sign, f"\\{sign}")
    return text


def _conditions(found: dict[str, Any]) -> str:
    spent, asked = found["budget"]["spent_minutes"], found["budget"]
    budget = [counted(asked['minutes'], 'minute')] if asked["minutes"] else []
    budget += [counted(asked['trials'], 'trial')] if asked["trials"] else []
    pilot = found["autopilot"]
    threads = f"; latency of one text, {counted(pilot['threads'], 'thread')}, measured before the training" if pilot else ""
    return (
        f"Budget: {', '.join(budget) or 'the grid'}; spent: {spent:.1f} minutes with {found['backend']} on "
        f"{found['machine']['cpu']} ({found['machine']['host']}){threads}."
    )


def _score(found: dict[str, Any], value: float | None) -> str:
    return score_text(found["metric"], value)


def _axis_value(trial: dict[str, Any], axis: str) -> float | None:
    value = trial[axis]
    return value / 1e6 if axis == "parameters" and value is not None else value


def _kind(found: dict[str, Any], trial: dict[str, Any]) -> str:
    return "best" if trial["number"] == found["best"] else "default" if trial["is_default"] else "trial"


def _label(found: dict[str, Any], kind: str) -> str:
    """What the page calls a kind of trial."""
    return found["default_name"].removeprefix("the ") if kind == "default" else kind


def _y(found: dict[str, Any], value: float) -> float:
    return value if is_number(found["metric"]) else 100 * value


def _y_title(found: dict[str, Any]) -> str:
    return found["metric"].replace("_", " ") + " on dev" + ("" if is_number(found["metric"]) else ", %")


def _points(found: dict[str, Any], trials: Sequence[dict[str, Any]], values: Sequence[float]) -> list[Point]:
    """The important ones last, so that they lie on top."""
    order = list(_KINDS)[::-1]
    pairs = sorted(zip(trials, values, strict=True), key=lambda pair: order.index(_kind(found, pair[0])))
    return [
        Point(x, _y(found, trial["score"]), *_KINDS[_kind(found, trial)], _name(trial), _score(found, trial["score"]))
        for trial, x in pairs
    ]


def _name(trial: dict[str, Any]) -> str:
    point = ", ".join(f"{key.rpartition('.')[2]} {value_text(value)}" for key, value in trial["point"].items())
    return f"trial {trial['number']} · {point}"


def _front(found: dict[str, Any]) -> dict[str, Any] | None:
    axis = found["axis"]
    trials = [trial for trial in found["trials"] if trial["score"] is not None and trial[axis] is not None]
    values = [_axis_value(trial, axis) for trial in trials]
    if len(set(values)) < 2:
        return None
    by_number = {trial["number"]: trial for trial in trials}
    corners = [(_axis_value(by_number[number], axis), _y(found, by_number[number]["score"])) for number in found["front"]]
    limit = (found["autopilot"] or {}).get("max_latency_ms") if axis == "latency_ms" else None
    title = "Score against latency" if axis == "latency_ms" else "Score against size"
    about = "The line joins the trials that no other beats at the same or a smaller value: the Pareto front."
    titles = (_AXES[axis], _y_title(found))
    shown = {"joined": corners, "limit": (limit, f"limit {limit:g} ms") if limit else None}
    label = f"{title}, {counted(len(trials), 'trial')}."
    picture = scatter_chart("front", label, _points(found, trials, values), titles, **shown)
    return {"title": title, "about": about, "picture": picture}


def _curves(found: dict[str, Any]) -> dict[str, Any] | None:
    with_curve = [trial for trial in found["trials"] if len(trial["curve"]) > 1]
    if not with_curve:
        return None
    order = list(_KINDS)
    sign = -1 if found["higher_is_better"] else 1
    ranked = sorted(with_curve, key=lambda each: (order.index(_kind(found, each)), sign * max(y for _, y in each["curve"])))
    series = []
    for trial in ranked[:_MOST_CURVES]:
        kind = _kind(found, trial)
        marks = ([_label(found, kind)] if kind != "trial" else []) + (["given up"] if trial["state"] == "pruned" else [])
        name = ", ".join([f"trial {trial['number']}", *marks])
        points = trial["curve"]
        series.append(Series(name, _KINDS[kind][0], [x for x, _ in points], [_y(found, y) for _, y in points]))
    picture = line_chart("curves", "Score on dev over the epochs.", series, _y_title(found), over_epochs=True)
    rest = len(with_curve) - len(series)
    more = f"; {counted(rest, 'more trial')} {'is' if rest == 1 else 'are'} not drawn" if rest else ""
    return {"title": "Score over the epochs", "about": f"The best and those nearest to it{more}.", "picture": picture}


def _slices(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The score over each thing that was searched."""
    complete, charts = [trial for trial in found["trials"] if trial["score"] is not None], []
    for index, (key, text) in enumerate(list(found["space"].items())[:_MOST_SLICES]):
        values = [trial["point"].get(key) for trial in complete]
        if len({str(value) for value in values}) < 2:
            continue
        names = found["choices"].get(key, [])
        places = [names.index(value) for value in values] if names else values
        options = {"logarithmic": "logarithmic" in text, "names": names, "height": 250}
        titles = (key, _y_title(found))
        picture = scatter_chart(f"slice-{index}", f"Score over {key}.", _points(found, complete, places), titles, **options)
        charts.append({"title": f"Score over {key}", "about": f"Searched: {text}.", "picture": picture})
    return charts


def _seed_table(found: dict[str, Any]) -> dict[str, Any] | None:
    if not found["seeds"]:
        return None
    names = {"default": found["default_name"], "best": f"the best, trial {found['best']}"}
    rows = []
    for side, own in found["seeds"].items():
        scores = ", ".join(_score(found, value) for value in own["scores"])
        rows.append([names[side], spread_text(found["metric"], own), scores])
    about = "Runs with seeds that chose nothing; ± is the standard deviation over them."
    if found["verdict"] is not None:
        about = f"{found['verdict']['text']} {about}"
    metric = found["metric"].replace("_", " ")
    heading = ["", f"{metric} on dev", "each seed"]
    return {"title": "With other seeds", "about": about, "heading": heading, "rows": rows, "left": 1}


def _candidates(found: dict[str, Any]) -> dict[str, Any] | None:
    pilot = found["autopilot"]
    if not pilot:
        return None
    heading = ["student", "parameters", "weights, MB", "latency, ms", ""]
    rows = [
        [each["name"], count_text(each["parameters"]), f"{each['bytes'] / 1e6:,.1f}", _ms(each["latency_ms"]), each["verdict"]]
        for each in pilot["students"]
    ]
    about = (
        f"Measured before the training, with the weights that each starts from: the median of a request of one text of dev, from "
        f"token ids to logits, {counted(pilot['threads'], 'thread')} of {found['machine']['cpu']}, {found['backend']}."
    )
    if pilot.get("check_ms"):
        about += f" The best, trained, measured again in the end: {pilot['check_ms']:.2f} ms."
    return {"title": "Students that were considered", "about": about, "heading": heading, "rows": rows, "left": 1}


def _trial_table(found: dict[str, Any]) -> dict[str, Any]:
    keys = list(found["space"])
    heading = ["trial", "", f"{found['metric'].replace('_', ' ')} on dev", *keys, "parameters", "epochs", "seconds"]
    has_latency = any(trial["latency_ms"] for trial in found["trials"])
    heading += ["latency, ms"] if has_latency else []
    sign = -1 if found["higher_is_better"] else 1
    order = sorted(found["trials"], key=lambda each: (each["score"] is None, sign * (each["score"] or 0), each["number"]))
    rows = []
    for trial in order:
        marks = [counts_text({trial["state"]: 1}).removeprefix("1 ")] if trial["state"] != "complete" else []
        marks += ["best"] if trial["number"] == found["best"] else []
        marks += [found["default_name"]] if trial["is_default"] else []
        marks += ["front"] if trial["number"] in found["front"] and len(found["front"]) > 1 else []
        marks += [trial["error"][:160]] if trial["error"] else []
        ended = trial["curve"][-1] if trial["curve"] else None
        score = _score(found, trial["score"])
        if trial["score"] is None and ended:
            score = f"({_score(found, ended[1])})"
        epochs = trial["epochs"] if trial["epochs"] is not None else ended[0] if ended else None
        row = [str(trial["number"]), ", ".join(marks), score, *(value_text(trial["point"].get(key, "–")) for key in keys)]
        row += [count_text(trial["parameters"]), "–" if epochs is None else f"{epochs:.2f}", f"{trial['seconds']:.0f}"]
        rows.append(row + ([_ms(trial["latency_ms"])] if has_latency else []))
    about = "Each is a run folder under trials/, with its own report.html. In brackets: the last score of one that was given up."
    return {"title": "Every trial", "about": about, "heading": heading, "rows": rows, "left": 2}


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _tiles(found: dict[str, Any]) -> list[dict[str, str]]:
    by_number = {trial["number"]: trial for trial in found["trials"]}
    tiles = []
    if found["best"] is not None:
        best = by_number[found["best"]]
        what, more = f"Best {_y_title(found).removesuffix(', %')}", f"trial {best['number']}"
        tiles.append({"what": what, "value": _score(found, best["score"]), "more": more})
        if found["default"] is not None and by_number[found["default"]]["score"] is not None:
            own = _score(found, by_number[found["default"]]["score"])
            tiles.append({"what": _label(found, "default").capitalize(), "value": own, "more": f"trial {found['default']}"})
        if best["latency_ms"]:
            tiles.append({"what": "Latency of one text", "value": f"{best['latency_ms']:.2f} ms", "more": ""})
        tiles.append({"what": "Parameters", "value": count_text(best["parameters"]), "more": ""})
    counts = found["counts"]
    tiles.append({"what": "Trials", "value": str(sum(counts.values())), "more": counts_text(counts)})
    spent = found["budget"]["spent_minutes"]
    limit = found["budget"]["minutes"]
    tiles.append({"what": "Time spent", "value": f"{spent:.1f} min", "more": f"of {limit:g}" if limit else ""})
    return tiles
