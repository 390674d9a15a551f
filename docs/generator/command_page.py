"""docs/reference/commands.md: every command with its arguments and options, from the command line's own parser."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import typer
from meanings import cell, one_line

from crossdistil.core.app.cli import app
from crossdistil.core.app.options import MOST

INTRODUCTION = """# Commands

Written by `python docs/generator/reference.py` from the command line's own parser; `crossdistil COMMAND --help` says
the same. What a user can do wrong ends with one line and exit code 2; 1 is a comparison that found a difference, 130
an interruption.
"""


def command_page() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *_lines(typer.main.get_command(app), "crossdistil")]) + "\n"


def _lines(command: Any, name: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner and not getattr(command, "invoke_without_command", False):
        for each, child in sorted(inner.items()):
            if not child.hidden:
                yield from _lines(child, f"{name} {each}")
        return
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each not in arguments and not each.hidden and "--help" not in each.opts]
    usage = " ".join([name, *(_usage(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    yield from [f"## {name.partition(' ')[2]}", "", "```text", usage, "```", ""]
    yield from [cell("\n\n".join(one_line(part) for part in (command.help or "").split("\n\n"))), ""]
    if arguments or options:
        yield from ["| name | value | default | meaning |", "| --- | --- | --- | --- |"]
        for each in [*arguments, *options]:
            names = [*each.opts, *each.secondary_opts] if each in options else [_metavar(each)]
            shown = ", ".join(f"`{word}`" for word in names)
            yield f"| {shown} | {_value(each)} | {_default(each)} | {cell(one_line(each.help or ''))} |"
        yield ""
    for key, child in sorted((inner or {}).items()):
        yield from _lines(child, f"{name} {key}")


def _metavar(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def _usage(argument: Any) -> str:
    text = _metavar(argument) + ("..." if argument.nargs != 1 and "..." not in _metavar(argument) else "")
    return text if argument.required else f"[{text.strip('[]')}]"


def _value(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    described, kinds = parameter.type_descriptor, {"Path": "path", "str": "text", "int": "whole number", "float": "number"}
    if described.is_choice:
        return ", ".join(f"`{getattr(each, 'value', each)}`" for each in described.choices)
    inside = typing.get_args(described.annotation)
    word = (inside[0] if inside else described.annotation).__name__
    shown = f"`{parameter.metavar}`" if parameter.metavar and parameter.param_type_name == "option" else kinds[word]
    if parameter.min is not None:
        shown += f", from {parameter.min}" + ("" if parameter.max is None or parameter.max >= MOST else f" to {parameter.max}")
    return cell(shown + (", may be repeated" if getattr(parameter, "multiple", False) else ""))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "must be given"
    value = parameter.default
    if value is None or value is False or callable(value) or value == () or value == []:
        return ""
    return f"`{getattr(value, 'value', value)}`"
