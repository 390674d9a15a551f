"""The command line. Errors that a user can cause are one line on stderr and exit code 2, never a traceback.

It starts with what parsing needs: a command's module is imported when the command is called (`core.app.commands`), what only an
error needs when there is one.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated

import typer

from ... import __version__
from ..errors import MESSAGE_PREFIX, CrossdistilError
from ..processes import end_with_parent
from ..shown import plain
from .commands import LazyGroup
from .error_lines import Terminated, terminate, words_of

app = typer.Typer(
    name="crossdistil",
    cls=LazyGroup,
    help="One distillation recipe, executed on PyTorch, OneFlow and MindSpore.",
    pretty_exceptions_enable=False,
    suggest_commands=False,  # `core.app.usage` does
    context_settings={"help_option_names": ["-h", "--help"]},
)
_UsageError = typer.BadParameter.__base__
"""Base of what the parsing of arguments raises; typer exports only this one of them."""

_LONGEST = 3000
"""Characters of a line of a message, which may repeat what was typed."""


def main() -> None:
    """The entry point: runs the command and turns errors into messages and exit codes."""
    end_with_parent()
    signal.signal(signal.SIGTERM, terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))  # who started this may have held them back
    stopped = ""
    try:
        if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGINT, signal.default_int_handler)  # until here Ctrl-C ended the process at once
        code = app(sys.argv[1:] or ["--help"], "crossdistil", standalone_mode=False) or 0
        stopped = "interrupted" if code == 130 else ""  # which typer makes of it
        sys.stdout.flush()
    except _UsageError as error:
        from .usage import usage_text

        code = _fail(usage_text(error))
    except (KeyboardInterrupt, typer.Abort):
        code, stopped = 130, "interrupted"
    except Terminated as error:
        code, stopped = words_of(error)
    except SystemExit as error:
        sys.exit(error.code)  # and not raise, which `core.processes.ExitCode` does not see
    except BaseException as error:
        code, text = words_of(error)
        if isinstance(error, OSError) and code != 1 and error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if getattr(error, "told", False):
            sys.exit(code)
        if code == 1:
            raise
        if code != 141:
            _fail(text)
    if stopped:  # `run` says what it has saved
        what = "nothing is half written"
        if sys.argv[1:3] == ["data", "mlm"]:
            what = "--resume keeps the record files that are complete"
        if sys.argv[1:3] == ["cache", "teacher"]:
            what = "the same command goes on with the rows that are not cached yet"
        print(f"crossdistil: {stopped}; {what}", file=sys.stderr)
    sys.exit(code)


def _fail(text: str) -> int:
    from .launchers import find_place, let_the_first_speak

    # Whatever is in a file's name or a text: no character that a terminal obeys, and none that cannot be written.
    try:
        rank = let_the_first_speak(find_place())
    except CrossdistilError:
        rank = ""
    for line in text.split("\n"):
        print(f"{MESSAGE_PREFIX}{plain(rank + line, _LONGEST)}", file=sys.stderr)
    return 2


def _print_version(asked: bool) -> None:
    if asked:
        print(f"crossdistil {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """One distillation recipe, executed on PyTorch, OneFlow and MindSpore."""
