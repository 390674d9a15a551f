"""What the functions that plugins call have in common: who calls, which names can be taken, and where it is kept."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from typing import Any

from .errors import PluginError
from .registered import RECORDS, Registration
from .shown import shown


def caller() -> tuple[str, str]:
    """The module that registers something, and `FILE:LINE`; called by the function that the plugin calls."""
    frame = sys._getframe(2)
    return frame.f_globals.get("__name__", ""), f"{frame.f_code.co_filename}:{frame.f_lineno}"


def checked_name(name: Any, what: str, place: str, taken: Collection[str]) -> str:
    """The name of something, which is none of those that are `taken`. Raises PluginError."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][\w-]{0,99}", name):
        expected = "a name of letters, digits, _ and - that begins with a letter"
        raise PluginError(f"{place}: {what} {shown(name)}: expected {expected}")
    if name in taken:
        raise PluginError(f"{place}: {what} '{name}': crossdistil has one of this name; choose another")
    return name


def record(module: str, registration: Registration) -> None:
    """Keep what a module registers. Raises PluginError where it does so twice."""
    own = RECORDS.setdefault(module, [])
    for other in own:
        if type(other) is type(registration) and other.name == registration.name:
            raise PluginError(f"{registration.place}: '{registration.name}' is registered twice, first at {other.place}")
    own.append(registration)
