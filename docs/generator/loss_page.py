"""docs/reference/losses.md: every loss with its formula, source, options and unit."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from meanings import cell, meanings, one_line
from types_shown import default_shown, type_shown

from crossdistil.core.losses.base import LossTerm
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.losses.matching import Projection
from crossdistil.core.losses.presets import PRESETS
from crossdistil.core.losses.temperature import TemperatureSchedule

GROUPS = {
    "hard_label": "Labels",
    "logits": "Answers",
    "hidden": "Hidden states",
    "attention": "Attention",
    "relations": "Relations",
    "word_losses": "Words",
    "sentence_vectors": "Sentence embeddings",
    "sentence_similarities": "Similarities of sentence embeddings",
    "candidate_scores": "Candidates of a query",
    "candidate_lists": "Candidates compared with each other",
}
"""Module -> heading."""
UNITS = {
    "examples": "examples",
    "labelled": "labelled examples",
    "tokens": "tokens",
    "token_pairs": "pairs of tokens",
    "masked": "masked tokens",
    "next_tokens": "tokens but the first of a text",
    "positions": "positions, padding too",
    "position_pairs": "pairs of positions, padding too",
}
INTRODUCTION = """# Losses

Written by `python docs/generator/reference.py` from the program itself. A stage's objective is a list of these; its
value is the sum of weight times term. S is the student, T the teacher, z logits, H hidden states, A attention scores.
A term is a mean over a unit of the whole optimizer step, on all devices and in all parts of an accumulation, never
over padding unless an option says so.

Layers are given as a rule (`uniform`, `skip`, `last`, `top`, `bottom`, `final`) or as `[[teacher, student], ...]`,
counted from 1; 0 is the embedding output. Your own losses: [Plugins](../plugins.md).

Every term has
"""


def loss_page() -> str:
    """The page."""
    lines = [INTRODUCTION, *_options(LossTerm, ())]
    named = {name: term.__module__.rpartition(".")[2] for name, term in LOSSES.items()}
    if without := [name for name, module in named.items() if module not in GROUPS]:
        raise SystemExit(f"losses of a module that has no heading in GROUPS: {', '.join(without)}")
    for module, heading in GROUPS.items():
        lines += [f"## {heading}", ""]
        for name, term in LOSSES.items():
            if named[name] == module:
                lines += _term(name, term)
    lines += ["## Sections of terms", "", "### `projection`", "", cell(one_line(inspect.getdoc(Projection))), ""]
    lines += [*_options(Projection, ()), "### `temperature_schedule`", ""]
    lines += [cell(one_line(inspect.getdoc(TemperatureSchedule))), "", *_options(TemperatureSchedule, ())]
    lines += ["## TextBrewer's names", ""]
    lines += ["An objective may hold TextBrewer's names of lists of matches:", "", ", ".join(f"`{name}`" for name in PRESETS), ""]
    return "\n".join(lines)


def _term(name: str, term: type[LossTerm]) -> Iterator[str]:
    given = {key: "query" for key, field in term.model_fields.items() if field.is_required() and key != "loss"}
    unit = UNITS[term(loss=name, **given).unit]
    yield from [f"### `{name}`", "", "```text", one_line(term.formula), "```", ""]
    teacher = "" if term.needs_teacher else " Needs no teacher."
    yield from [f"{cell(one_line(inspect.getdoc(term)))}", "", f"Mean over: {unit}.{teacher}", ""]
    yield from _options(term, tuple(LossTerm.model_fields))


def _options(model: type, without: tuple[str, ...]) -> Iterator[str]:
    rows = [(key, field) for key, field in model.model_fields.items() if key not in without]
    if rows:
        yield from ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
        known = meanings(model)
        for key, field in rows:
            yield f"| `{key}` | {cell(type_shown(field))} | {default_shown(field)} | {cell(known.get(key, ''))} |"
        yield ""
