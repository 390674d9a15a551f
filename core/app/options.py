"""What commands have in common: their options, and the hand-over to the Python that has the backend."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...backends.registry import BACKENDS, interpreter
from ...converters.layouts import LAYOUTS
from ..processes import Forwarded, child_environment, python_command

if TYPE_CHECKING:
    from ..registered import Registered


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
NodesOption = Annotated[
    int | None, typer.Option(min=1, max=MOST, metavar="N", help="With --devices: on N machines, each started with this command.")
]
NodeRankOption = Annotated[int | None, typer.Option(metavar="R", help="Which of the machines this is, from 0.")]
MasterOption = Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="Address of machine 0; default of PORT: 29500.")]
PresetOption = Annotated[
    list[str] | None,
    typer.Option("--preset", help="A variant that the recipe names, applied before --set; several in their order."),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key.")]
PluginOption = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE.py|MODULE", help="Your own code: losses, metrics, families, ...; it is executed."),
]
LogOption = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="SINK", help="Also follow the run there: tensorboard, wandb, mlflow, swanlab, or a plugin's."),
]
PrecisionOption = Annotated[Precision, typer.Option(help="What the model computes in.")]


def names_in(text: str) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def given_plugins(command: str, plugins: Sequence[str] | None) -> Registered:
    """What the files and modules of --plugin register, which run now. Raises PluginError."""
    from ..registered import NOTHING

    if not plugins:
        return NOTHING
    from ..plugin_files import load_plugins, named_plugins  # which few calls need

    return load_plugins(named_plugins({}, command, plugins or []))


def hand_over(backend: str, text: str | None = None) -> None:
    """If another interpreter has the backend, run this very command there and end with its exit code; `text` is its
    standard input."""
    python = interpreter(backend)
    if python == Path(sys.executable):
        return
    # A signal that comes while the worker is still importing waits until it can be handled.
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    worker = subprocess.Popen(
        python_command(python, "crossdistil", *sys.argv[1:]),
        env=child_environment(),
        stdin=None if text is None else subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # The worker saves what it has and says so, however often it is asked.
    with Forwarded(worker):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        worker.communicate(text)
    code = worker.returncode
    sys.exit(code if code >= 0 else 128 - code)
