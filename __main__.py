"""`python -m crossdistil` is the `crossdistil` command. Ctrl-C while the program itself is still being read, which takes a
moment, ends it as quietly as later: nothing has begun."""

import os
import signal
import sys


def start() -> None:
    """The entry point of the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and is not ignored, as in a shell's background
        signal.signal(signal.SIGINT, _end)
    from .core.app.cli import main
    from .core.collector import in_command

    with in_command():
        main()


def _end(number: int, frame: object) -> None:
    # At once: what is being imported may turn an exception into another one.
    print("crossdistil: interrupted; nothing is half written", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    start()
