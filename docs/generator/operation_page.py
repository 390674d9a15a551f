"""docs/reference/ops.md: the primitives that models and losses are written in."""

from __future__ import annotations

import inspect

from crossdistil.core import ops
from crossdistil.core.ops import Ops

INTRODUCTION = """# Operations

Written by `python docs/generator/reference.py` from `core/ops.py`. Models and losses, yours too, are plain functions
over these; each backend supplies them. `+`, `-`, `*`, `/` and `[i, j]` with fixed indices are the tensors' own.
[Dialect](../dialect.md) says what such a function may hold.
"""


def operation_page() -> str:
    """The page."""
    rules = inspect.getdoc(ops).partition("Rules that")[2]
    lines = [INTRODUCTION, f"Rules that{rules.replace(':' + chr(10), ':' + chr(10) * 2, 1)}", ""]
    for name, function in vars(Ops).items():
        if not name.startswith("_") and callable(function):
            signature = str(inspect.signature(function)).replace("self, ", "").replace("'", "").replace("np.", "")
            lines += [f"## `{name}`", "", "```text", f"{name}{signature}", "```", ""]
            lines += [_outside_code(inspect.cleandoc(function.__doc__ or "")), ""]
    return "\n".join(lines)


def _outside_code(text: str) -> str:
    """Characters of Markdown and HTML are escaped, but where code is quoted."""
    parts = text.split("`")
    escaped = [part.replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_") for part in parts[::2]]
    parts[::2] = escaped
    return "`".join(parts)
