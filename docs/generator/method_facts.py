"""What stands in a method's page between `<!-- method:begin NAME -->` and its end: paper, objective, presets, what was measured.
All of it is read from the recipe and from the kept results."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from meanings import cell, one_line

from crossdistil.core.recipe import load_recipe, recipe_tree

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "methods"
sys.path.insert(0, str(ROOT / "benchmarks"))

import pages  # noqa: E402 - a script beside others, no package

MARKERS = re.compile(r"(<!-- method:begin (\w+) -->\n).*?(<!-- method:end \2 -->)", re.DOTALL)


def filled(text: str) -> str:
    """A page with the facts of the methods that it has places for."""
    return MARKERS.sub(lambda found: f"{found[1]}{facts(found[2])}\n{found[3]}", text)


def facts(name: str) -> str:
    """The facts of one recipe."""
    recipe, tree = load_recipe(name), recipe_tree(name)
    lines = [f"**Paper:** {cell(recipe.notes.paper)}.", ""]
    if recipe.notes.published:
        lines += [f"**Published:** {cell(recipe.notes.published)}.", ""]
    lines += ["| stage | weight | loss | formula |", "| --- | ---: | --- | --- |"]
    for stage in recipe.stages:
        for term in stage.objective:
            options = {key: value for key, value in _given(term).items() if key not in ("loss", "weight")}
            shown = "".join(f"; {key}: {_short(value)}" for key, value in options.items())
            link = f"[`{term.loss}`](../reference/losses.md#{term.loss})"
            lines.append(f"| {stage.name} | {term.weight:g} | {link}{cell(shown)} | {cell(one_line(term.formula))} |")
    if tree.get("presets"):
        presets = ", ".join(f"`{preset}`" for preset in tree["presets"])
        lines += ["", f"**Presets:** {presets}; each is written out in `recipes/{name}.yaml`."]
    measured = _measured(name)
    return "\n".join([*lines, "", *measured]).rstrip()


def _given(term: Any) -> dict[str, Any]:
    return term.model_dump(mode="json", exclude_unset=True)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_short(each)}" for key, each in value.items()) + "}"
    return str(value).replace("True", "true").replace("False", "false")


def _measured(name: str) -> list[str]:
    table, _, below = pages.body("sst2").partition("\n\n")
    rows = table.splitlines()
    own = [row for row in rows[2:] if row.startswith(f"| `{name}`") or _alone(name, row)]
    if not own:
        return []
    reference = [row for row in rows[2:] if row.startswith(("| teacher", "| fine-tuned")) and row not in own]
    title = "**Measured** on SST-2's dev ([all methods](../evidence.md#students-on-sst-2)):"
    return [title, "", *rows[:2], *reference, *own, "", below.splitlines()[-1]]


def _alone(name: str, row: str) -> bool:
    names = {"bilstm": "| BiLSTM alone", "t4tiny": "| T4-tiny alone", "finetune": "| fine-tuned"}
    return name in names and row.startswith(names[name])
