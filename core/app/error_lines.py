"""How the command line says an error that is no bug: its exit code and its line."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from ..data.panics import is_panic
from ..errors import CrossdistilError
from ..shown import plain


class Terminated(SystemExit):
    """SIGTERM came, and nothing has been said of it."""


def terminate(number: int, frame: object) -> NoReturn:
    """The handler of SIGTERM. Raises Terminated."""
    raise Terminated(128 + number)


def words_of(error: BaseException) -> tuple[int, str]:
    """Exit code and text, of one or more lines. The code is 2 for what the user can mend, 1 for a bug of this program or of a
    library (of which the traceback says more), 141 for a reader that is gone, and that of the signal where one ended the work."""
    if isinstance(error, CrossdistilError):
        return 2, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        return code, "terminated" if code == 143 else f"ended with exit code {code}"
    if isinstance(error, MemoryError):
        # NumPy says how much was asked for, Python nothing.
        return 2, f"there is not enough memory{f': {error}' if str(error) else ''}; a smaller batch or model needs less"
    if isinstance(error, OSError) and error.errno is not None:
        # Files have their own errors, which name them: what has no name here is standard output.
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "standard output"
        return 141 if isinstance(error, BrokenPipeError) else 2, f"{name}: {error.strerror}"
    if is_panic(error):
        return 2, f"the tokenizers library failed: {plain(str(error))}"
    return 1, f"{type(error).__name__}: {' '.join(str(error).split())}"


def what_is_left() -> str:
    """What there is after the command was ended in the middle."""
    if sys.argv[1:2] == ["run"]:
        return "--resume goes on from the last saved state, if there is one"
    return "nothing is half written"
