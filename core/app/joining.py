"""How a process joins the others of its run, and how all of them end together: with one line, whichever of them failed.

The first process speaks for all. The others write to `logs/rank-N.log` in the run folder once there is one, and say nothing on the
terminal but that they cannot join.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from ..engine import Engine
from ..errors import MESSAGE_PREFIX, CrossdistilError
from ..peers import Peers
from ..world import World

LOGS = "logs"


def join(engine: Engine) -> World:
    """The world of the run that this process is of; waits for the other processes, if there are any."""
    return World() if engine.place.size == 1 else Peers(engine.place, engine.total)


@contextlib.contextmanager
def ending_together(world: World) -> Iterator[None]:
    """Whatever ends one process ends all, and the first one says it."""
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error) or world.size == 1:  # all have agreed to stop, and have saved
            world.close()
        else:
            world.fail("stopped at once", 130)
        raise
    except CrossdistilError as error:
        world.fail(str(error), 2)
        if world.rank:
            _end_quietly(str(error), 2)
        raise
    except SystemExit:
        world.close()
        raise
    except Exception as error:
        # A framework says of a process that is gone only that its sum has failed, and each framework in its own words.
        world.wait_for_end()
        world.fail(f"{type(error).__name__}: {' '.join(str(error).split())}", 1)
        if world.rank:
            traceback.print_exc()
            _end_quietly(str(error), 1)
        raise
    else:
        world.close()


def _end_quietly(text: str, code: int) -> None:
    if not sys.stderr.isatty():  # its own log
        print(f"{MESSAGE_PREFIX}{text}", file=sys.stderr, flush=True)
    sys.exit(code)


def be_quiet() -> None:
    """What this process prints is not for the terminal, since the first process prints the same."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def write_log(world: World, folder: Path) -> None:
    """From now on, all that this process and its framework print goes to its log. Without a folder of its own machine to
    write to, it goes nowhere."""
    if world.rank == 0:
        return
    try:
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        log = os.open(folder / LOGS / f"rank-{world.rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in {1, 2, sys.stdout.fileno(), sys.stderr.fileno()}:  # the framework's, and Python's where those are others
        os.dup2(log, stream)
    os.close(log)
