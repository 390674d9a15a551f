"""Each message that the page on troubleshooting quotes is one that the program has."""

from __future__ import annotations

import ast
import re

import pytest

from crossdistil.tests.doc_commands import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = [row[2:].partition("` | ")[0][1:] for row in PAGE.splitlines() if row.startswith("| `")]


def texts_of(source: str) -> list[str]:
    """Every string of a module, `…` where a value is filled in."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


@pytest.fixture(scope="module")
def said_by_the_program() -> list[str]:
    """The strings of the product's modules."""
    modules = (path for room in ("core", "backends", "converters") for path in (ROOT / room).rglob("*.py"))
    return [text for path in modules for text in texts_of(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("message", QUOTED)
def test_the_message_is_in_the_program(message, said_by_the_program):
    parts = [re.escape(part) for part in message.split("…") if part]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    assert any(pattern.search(text) for text in said_by_the_program), message


def test_many_are_quoted():
    assert len(QUOTED) > 25
