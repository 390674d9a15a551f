"""The templates of `networks/` as one file each: what a template imports of the others is copied into it, and its title and the
constants between its two marks are replaced.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

_TEMPLATES = Path(__file__).parent / "networks"
_CONSTANTS = re.compile(r"(?<=# --- what the weights beside this file are\n).*?(?=# --- end\n)", re.DOTALL)
_TITLE = re.compile(r'""".*?"""', re.DOTALL)
_IMPORTS = re.compile(r"^(?:import|from \w)[\w.]* .*\n", re.MULTILINE)
_SHARED = re.compile(r"^from \.(\w+) import .*\n", re.MULTILINE)
_COPIED = "# --- copied from here on\n\n"


def filled_in(to: str, kind: str, constants: dict[str, Any], title: str) -> str:
    """The template of framework `to` for a network of this kind, with these constants and this title."""
    lines = [f"{key} = {_literal(value)}" for key, value in constants.items()]
    text = _CONSTANTS.sub(lambda _: "\n".join(lines) + "\n", _template(to, kind), count=1)
    return _TITLE.sub(lambda _: f'"""{title}\n"""', text, count=1)


def _template(to: str, kind: str) -> str:
    """The template of a framework, with what is shared in place of its imports: one file, and what that imports once each."""
    name = {"pytorch": "torch", "tf": "tensorflow"}.get(to, to)
    text = (_TEMPLATES / f"{name}_{kind}.py").read_text("utf-8")
    head, mark, body = text.partition("# --- what")
    imported, copied = set(_IMPORTS.findall(head)), []
    for shared in _SHARED.findall(head):
        above, _, below = (_TEMPLATES / f"{shared}.py").read_text("utf-8").partition(_COPIED)
        imported |= set(_IMPORTS.findall(above))
        copied.append(below.lstrip("\n"))
    title = _TITLE.search(head)
    start = head[: title.end()] + "\n\n" + _sorted_imports(imported) + "\n"
    return start + mark + body.replace("# --- end\n", "# --- end\n\n" + "\n\n".join(copied), 1)


def _sorted_imports(lines: Collection[str]) -> str:
    """Python's own before others, `import` before `from`."""
    own = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    groups = (own, [line for line in lines if line not in own])
    return "\n".join("".join(sorted(group, key=lambda line: (line.startswith("from"), line))) for group in groups)


def _literal(value: Any) -> str:
    """A constant as a person would write it: an entry a line, where it has several."""
    if isinstance(value, dict) and len(value) > 1:
        return "{\n" + "".join(f"    {_literal(key)}: {_literal(entry)},\n" for key, entry in value.items()) + "}"
    if isinstance(value, dict):
        return "{" + "".join(f"{_literal(key)}: {_literal(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        start, end = "[]" if isinstance(value, list) else "()"
        return f"{start}{', '.join(map(_literal, value))}{end}"
    return json.dumps(value) if isinstance(value, str) else repr(value)
