"""Sums over the processes of a run, by MindSpore's collectives: mccl on a CPU, hccl on Ascend NPUs.

The processes meet in two ways. Under msrun they ask its scheduler, a process with MS_ROLE=MS_SCHED that runs the same command and
so comes here as well. Else (`--devices`, srun) the first process holds a store at MASTER_ADDR and MASTER_PORT, as
`mint.distributed.init_process_group` does; on a CPU, which that function refuses, this takes 3 s, where the scheduler takes up
to 35.

The gradients of a step and its loss values are summed inside the compiled step, in one flat float32 buffer: so the sum is part of
the sink's loop too. mccl sums float32 and float16 only.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import mindspore as ms
import numpy as np
from mindspore import ops as P
from mindspore.communication import init
from mindspore.communication.management import _init_with_store
from mindspore.ops.communication import TCPStore

from ...core.errors import BackendError
from ...core.peers import meeting_seconds, wait_seconds
from ...core.place import Place
from .ending import end_as_one_of_several, end_by_exit_functions

LIBRARIES = {"CPU": "mccl", "Ascend": "hccl"}
_WAIT_SETTING = "MS_NODE_TIMEOUT"
"""How many seconds a process waits in a sum for the others. mccl's own 30 are less than the compilation for a new batch shape may
take, which not all processes meet at the same step. A process that is gone is noticed elsewhere (`core.peers`)."""
_MEASURED_FLOATS, _MEASUREMENTS = 1 << 20, 3
"""Above this size the time of a sum is proportional to it."""


class Collective:
    """The processes of a run; a process that is alone has none. `target` is MindSpore's name of the device, which is set."""

    def __init__(self, place: Place, target: str):
        if os.environ.get("MS_ROLE") == "MS_SCHED":
            _schedule()
        try:
            os.environ.setdefault(_WAIT_SETTING, str(int(wait_seconds())))
            if place.launcher == "msrun":
                init(LIBRARIES[target])
            else:
                address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
                meeting = timedelta(seconds=meeting_seconds())
                # On a device this is also how long its sums are waited for.
                wait = meeting if target == "CPU" else timedelta(seconds=wait_seconds())
                store = TCPStore(address, port, place.size, place.rank == 0, meeting)
                _init_with_store(LIBRARIES[target], wait, place.size, place.rank, store)
        except KeyError as error:
            raise BackendError(f"{place.launcher}: {error.args[0]} is not set, where the processes meet") from error
        except (RuntimeError, ValueError) as error:
            missing = re.search(r"MS_WORKER_(\d+)", str(error))
            why = f"rank {missing[1]} of {place.size} has not come" if missing else str(error).splitlines()[0]
            raise BackendError(f"{place.launcher}: the processes do not meet: {why}") from error
        finally:
            _end_together(place)  # after init, which takes sys.excepthook
        self._reduce = P.AllReduce()

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of a float32 array over all processes."""
        return self._reduce(ms.Tensor(np.asarray(values, np.float32))).asnumpy()

    def seconds(self, floats: int) -> float:
        """About how long a sum of so many numbers takes, measured by a few of them (which all processes must do together)."""
        measured, found = np.zeros(min(floats, _MEASURED_FLOATS), np.float32), []
        for _ in range(1 + _MEASUREMENTS):  # the first one also makes the connections
            started = time.perf_counter()
            self.total(measured)
            found.append(time.perf_counter() - started)
        return float(np.median(found[1:])) * floats / len(measured)


def _schedule() -> NoReturn:
    """Be msrun's scheduler, and end with it: when all workers have ended, or when one is missed."""
    try:
        init("mccl")
    except RuntimeError as error:
        raise BackendError(f"msrun's scheduler: {str(error).splitlines()[0]}") from error
    end_by_exit_functions()
    sys.exit(0)


def _end_together(place: Place) -> None:
    if place.launcher != "msrun":
        end_as_one_of_several()
    elif (leave := _leave()) is not None:
        end_as_one_of_several(leave)
    else:
        end_by_exit_functions()


def _leave() -> Callable[[], object] | None:
    """What of MindSpore's exit functions tells the scheduler that this process ends well, `distributed::FinalizeCluster()`; None
    where a build of MindSpore has it under another name."""
    try:
        library = ctypes.CDLL(str(Path(ms.__file__).parent / "lib" / "libmindspore_cluster.so"))  # it is loaded already
        return library._ZN9mindspore11distributed15FinalizeClusterEv
    except (OSError, AttributeError):
        return None


@functools.cache  # MindSpore takes this once a process
def join(place: Place, target: str) -> Collective:
    """Meet the other processes."""
    return Collective(place, target)


def make_total(sizes: Sequence[tuple[int, ...]]) -> Callable:
    """`total(gradients, values) -> (gradients, values)`, summed over all processes, to be compiled; `sizes` are the shapes of the
    gradients."""
    shapes = [tuple(shape) for shape in sizes]
    lengths = [int(np.prod(shape)) for shape in shapes]
    starts = np.cumsum([0, *lengths]).tolist()
    reduce, concatenate = P.AllReduce(), P.Concat(0)

    def total(gradients, values):
        pieces = []
        for gradient in gradients:
            pieces.append(P.Reshape()(gradient, (-1,)))
        pieces.append(values)
        flat = reduce(concatenate(tuple(pieces)))
        summed = []
        for index in range(len(shapes)):
            piece = P.Slice()(flat, (starts[index],), (lengths[index],))
            summed.append(P.Reshape()(piece, shapes[index]))
        return summed, P.Slice()(flat, (starts[-1],), (values.shape[0],))

    return total
