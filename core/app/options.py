"""What commands have in common: their options, and the hand-over to the Python that has the backend."""

from __future__ import annotations

import signal
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ...backends.registry import BACKENDS, interpreter
from ...converters.formats import LAYOUTS
from ..processes import child_environment, python_command


class Precision(str, Enum):
    """What the model computes in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Framework(str, Enum):
    """Who shall read a converted checkpoint."""

    pytorch = "pytorch"
    tf = "tf"
    mindspore = "mindspore"
    oneflow = "oneflow"


LAYOUT_NAMES = "; ".join(f"{framework}: {', '.join(layouts)}" for framework, layouts in LAYOUTS.items())

MOST = 2**31 - 1
"""What no whole number on the command line is above."""

BackendOption = Annotated[str | None, typer.Option("--backend", help=f"{', '.join(BACKENDS)}; default: the first here.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, npu, ascend; default: the backend's best.")]
DevicesOption = Annotated[
    str | None, typer.Option(metavar="N|all", help="Run on N devices of this machine, a process on each.")
]
PrecisionOption = Annotated[Precision, typer.Option(help="What the model computes in.")]


def hand_over(backend: str, text: str | None = None) -> None:
    """If another interpreter has the backend, run this very command there and end with its exit code; `text` is its
    standard input."""
    python = interpreter(backend)
    if python == Path(sys.executable):
        return
    worker = subprocess.Popen(
        python_command(python, "crossdistil", *sys.argv[1:]),
        env=child_environment(),
        stdin=None if text is None else subprocess.PIPE,
        text=True,
    )
    # The worker saves what it has and says so: Ctrl-C reaches it from the terminal, SIGTERM from here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: worker.terminate())
    worker.communicate(text)
    sys.exit(worker.returncode)
