"""What a class's own source says about its fields: the text below each, which Python itself does not keep."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap


@functools.cache
def meanings(model: type) -> dict[str, str]:
    """Field -> the string below it, of a class and of those it inherits from, the nearest one counting."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if not each.__module__.startswith("crossdistil"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body
        for statement, below in zip(body, body[1:]):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and is_text(below):
                found[statement.target.id] = one_line(below.value.value)
    return found


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a string and nothing else."""
    return isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str)


def one_line(text: str) -> str:
    """A docstring's words on one line."""
    return re.sub(r"\s+", " ", text).strip()


def cell(text: str) -> str:
    """Text for a cell of a Markdown table: its bars do not end it, and its angle brackets are no HTML."""
    parts = re.split(r"(`[^`]*`)", text)
    plain = [part if part.startswith("`") else part.replace("<", "&lt;").replace("*", r"\*") for part in parts]
    return "".join(plain).replace("|", r"\|")
