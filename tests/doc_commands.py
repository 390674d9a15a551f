"""The shell commands on the project's pages: every line of their blocks, and what our own command line makes of it."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import typer

import crossdistil
from crossdistil.core.app.cli import app
from crossdistil.core.catalogue_folder import RECIPES_FOLDER
from crossdistil.core.recipe import load_recipe

ROOT = Path(crossdistil.__file__).resolve().parent
SHELLS = ("sh", "bash", "console", "")
NAMES = {path.stem for path in RECIPES_FOLDER.glob("*.yaml")}
"""Of the catalogue."""
USAGE_ERROR = typer.BadParameter.__base__


@dataclass(frozen=True)
class Line:
    """One command of a block, continued lines joined."""

    page: str
    text: str

    def words(self) -> list[str]:
        """As a shell would split it, without a prompt and without comments."""
        text = re.sub(r"^\w*\$ ", "", self.text)
        text = re.sub(r"\$[a-z]\w*", "", text)  # options that may be there or not
        text = re.sub(r"\$\{?[A-Z]\w*\}?", "1", text)
        return shlex.split(text, comments=True)


def pages() -> list[Path]:
    """The READMEs, docs/ and the page on migration."""
    found = [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md"), RECIPES_FOLDER / "MIGRATION.md"]
    return sorted(path for path in found if path.name != "migration.md")  # which only shows the latter


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of the fenced blocks of a page, those in lists without the list's indentation."""
    found = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [(language, dedent(content)) for language, content in found]


def lines(path: Path) -> list[Line]:
    """The lines of a page's shell blocks that are commands."""
    found, name = [], str(path.relative_to(ROOT))
    for language, content in blocks(path.read_text(encoding="utf-8")):
        if language == "text":  # what a command prints, behind the command
            found += [Line(name, line) for line in content.splitlines() if line.startswith("$ ")]
        if language in SHELLS:
            joined = re.sub(r"\\\n\s*", " ", content)
            joined = re.sub(r"<<-?'?(\w+)'?\n.*?^\1$", "", joined, flags=re.MULTILINE | re.DOTALL)  # what a command reads
            for line in filter(None, map(str.strip, joined.splitlines())):
                # A block that names no language may hold what commands print.
                is_call = language or re.match(r"(\w*\$ )?(\S+ )*crossdistil |.*which crossdistil\)", line)
                if is_call and not line.startswith("#"):
                    found.append(Line(name, line))
    return found


def own_arguments(words: list[str]) -> list[list[str]]:
    """What each call of crossdistil on a line is given; a launcher, an assignment or a condition may stand before it."""
    calls: list[list[str]] = []
    for index, word in enumerate(words):
        is_call = word == "crossdistil" or word == "crossdistil)"
        if is_call and not (index + 1 < len(words) and words[index + 1].endswith(":")):
            rest = words[index + 1 :]
            ends = [place for place, each in enumerate(rest) if each in ("&&", "||", "|", ";", "&", ">", "2>&1", ":::")]
            calls.append([each.rstrip(";") for each in rest[: ends[0] if ends else None]])
    return calls


@functools.cache
def command_line() -> Any:
    """The command with all its commands."""
    return typer.main.get_command(app)


def problem_of(arguments: list[str]) -> str | None:
    """What our command line, or the recipe's keys, say against these arguments; None if nothing."""
    command, name, rest = command_line(), "crossdistil", [each for each in arguments if each != "..."]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, name, rest = command.commands[rest[0]], f"{name} {rest[0]}", rest[1:]
    if rest == ["--install-completion"]:
        return None
    if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        return f"{name} has no command {rest[0]}"
    try:
        context = command.make_context(name, list(rest))
    except USAGE_ERROR as error:
        return None if "..." in arguments and type(error).__name__ == "MissingParameter" else str(error)
    given = context.params
    if given.get("recipe") in NAMES:
        try:
            load_recipe(given["recipe"], given.get("overrides") or (), given.get("preset"))
        except crossdistil.CrossdistilError as error:
            return str(error)
    return None
