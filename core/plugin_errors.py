"""What is said of an error that a plugin's code raised: where in it, what, and what helps."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from .errors import CrossdistilError, PluginError
from .shown import plain


def import_error(error: BaseException, plugin: str, is_file: bool) -> BaseException:
    """What an error while a plugin, a file or a module, was imported is raised as: where it was, what it is, and what to do."""
    if isinstance(error, KeyboardInterrupt | MemoryError | CrossdistilError):
        return error
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if frame.filename == plugin] or frames[-1:]
    place = f"{own[-1].filename}:{own[-1].lineno}" if own else plugin
    named = "" if is_file else f"plugin {plain(plugin)}: "
    return PluginError(f"{named}{plain(place)}: cannot be loaded: {error_text(error)}; {_remedy(error, plugin)}")


def _remedy(error: BaseException, plugin: str) -> str:
    """What helps against an error while a plugin was imported."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        if (Path(plugin).parent / f"{error.name}.py").is_file():
            return "a plugin is one file, or an installed package: put both into one"
        return f"install {plain(error.name.partition('.')[0])} for {sys.executable}"
    return "correct it there, or leave the plugin out"


def plugin_line(error: BaseException, files: Iterable[str]) -> str | None:
    """`FILE:LINE` of the last of these files that was executing when an error was raised, or None."""
    names = set(files)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def error_text(error: BaseException) -> str:
    """An error of someone's code in a line."""
    text = " ".join(str(error).split())
    return plain(f"{type(error).__name__}{f': {text}' if text else ''}", 400)
