"""Python's search for garbage, where there is none to find: among what an import has made, all of which stays, and at the end
of a process, with which all goes."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_commands: list[bool] = []
"""True where this process is a command."""


@contextlib.contextmanager
def in_command() -> Iterator[None]:
    """This process is a command: whatever is there when a framework has been imported may be kept to its end."""
    _commands.append(True)
    try:
        yield
    finally:
        gc.freeze()  # or the interpreter looks through all objects of a framework before it ends, a third of the import's time


@contextlib.contextmanager
def all_kept() -> Iterator[None]:
    """While a framework is imported, nothing is looked for; afterwards, in a command, never again among what is there now. Of
    torch's import the search is a sixth, and the first one after it takes as long."""
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _commands:
            gc.freeze()
        if looks:
            gc.enable()
