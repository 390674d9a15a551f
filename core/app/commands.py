"""Which commands there are and where each is, so that the command line imports the module of one only when it is called: for a
list of them, as --help and completion show it, none is.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Place(NamedTuple):
    """Where a command is."""

    module: str
    """In `core.app`."""
    name: str
    """Of its function there, or of the `typer.Typer` of a group of commands."""
    summary: str
    """The first line of its help."""


COMMANDS = {
    "run": Place("run_command", "run", "Train what a recipe describes, into a run folder."),
    "evaluate": Place("inference_commands", "evaluate", "Score a model on a task; prints the metrics as JSON."),
    "predict": Place(
        "inference_commands",
        "predict",
        "Classify texts; prints one JSON object a line: the label and the probability of each class, the spans that "
        "a model of tokens finds, the answer to a question, or the text's vector.",
    ),
    "crosscheck": Place(
        "crosscheck_command",
        "crosscheck",
        "Run a recipe on several backends and numbers of devices and compare them; exit code 0 if they agree, 1 if they differ.",
    ),
    "convert": Place(
        "conversion_commands",
        "convert",
        "Bring a checkpoint from one framework to another; neither need be installed.",
    ),
    "inspect": Place(
        "conversion_commands",
        "inspect",
        "Show what a checkpoint holds: format, architecture, labels, tensors, and what a conversion would drop.",
    ),
    "export": Place(
        "export_command",
        "export",
        "Write a model for a runtime, and judge it: one that answers otherwise is not written, and the exit code is 1.",
    ),
    "trim": Place(
        "trim_command",
        "trim",
        "Leave out the words that texts do not use, and prove on these texts that the model says the same; else exit code 1.",
    ),
    "check": Place(
        "check_command",
        "check",
        "Compare a plugin's losses (values, gradients, padding, accumulation) and optimizers with their NumPy formulas; "
        "exit code 1 if some differ.",
    ),
    "latency": Place(
        "latency_command",
        "latency",
        "Measure how fast models answer on the CPU, in turns: milliseconds, texts and tokens a second, memory, size on disk.",
    ),
    "serve": Place(
        "serve_command",
        "serve",
        "Answer texts over HTTP, with ONNX Runtime unless told otherwise; a page to try it is at /.",
    ),
    "compare": Place(
        "compare_command",
        "compare",
        "Compare finished runs: scores, costs, recipes, and which differences are real.",
    ),
    "search": Place(
        "search_command",
        "search",
        "Search the best settings of a recipe, or (--teacher) the best student within a limit.",
    ),
    "report": Place(
        "report_command",
        "report",
        "Write report.html of a finished run: scores, curves, confusions, errors with their texts; measure its latency "
        "if it is missing.",
    ),
    "push": Place("push_command", "push", "Send a student with its model card and recipe to the Hugging Face hub."),
    "recipes": Place(
        "catalogue_commands",
        "recipes",
        "List the catalogue, or explain one recipe: what it does, what it needs and what it costs.",
    ),
    "backends": Place(
        "catalogue_commands",
        "backends",
        "Show which backends there are, which Python has each, and how to install what is missing.",
    ),
    "demo": Place(
        "catalogue_commands",
        "demo",
        "A whole tour without a download: make sentences, fine-tune a teacher, distil a student on each backend, compare.",
    ),
    "data": Place("data_commands", "data_app", "Make new data of what there is."),
    "cache": Place(
        "cache_command",
        "cache_app",
        "Show what prepared data, teacher outputs and converted checkpoints take on disk, or remove them.",
    ),
}
"""In the order in which they are listed."""


@functools.cache
def load(name: str) -> Any:
    """The command of that name, with its arguments and options."""
    place = COMMANDS[name]
    found = getattr(importlib.import_module(f".{place.module}", __package__), place.name)
    if isinstance(found, typer.Typer):
        command = typer.main.get_group(found)
        command.name = name
        return command
    single = typer.Typer(add_completion=False)
    single.command(name)(found)
    return typer.main.get_command(single)


class LazyGroup(TyperGroup):
    """All of them, each known by name and summary until it is called."""

    @property
    def commands(self) -> dict[str, Any]:
        """Name -> command; loads all of them."""
        return {name: load(name) for name in COMMANDS}

    @commands.setter
    def commands(self, none: Any) -> None:
        """typer gives those that are registered with it, of which there are none."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        place = COMMANDS.get(cmd_name)
        return None if place is None else TyperCommand(cmd_name, help=place.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, None if found is None else load(found.name), rest
