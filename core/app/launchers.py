"""Launchers that start a program several times, each copy as one of many: a run is one process, so all of them would train the
whole model, in one folder."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import CrossdistilError

_SIZES = {
    # The launcher, its number of processes, and a variable that only a process which it started has.
    "torchrun": ("WORLD_SIZE", "RANK"),
    "msrun": ("MS_WORKER_NUM", "MS_ROLE"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "MPI": ("PMI_SIZE", "PMI_RANK"),
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
}


def refuse_launchers(environment: Mapping[str, str] = os.environ) -> None:
    """Raise CrossdistilError in a process that a launcher started as one of several. One process is fine, and so is the script
    of a SLURM job that has room for several tasks: it is no task itself."""
    for launcher, (size, own) in _SIZES.items():
        count = environment.get(size)
        if launcher == "srun" and count is None and not _is_batch_script(environment):
            size, count = "SLURM_NTASKS", environment.get("SLURM_NTASKS")
        if own in environment and count is not None and count.strip().isdecimal() and int(count) > 1:
            raise CrossdistilError(
                f"{launcher} ({size}={count}): started this as one of {int(count)} processes, but a run is one process on one "
                "device; start crossdistil itself, once"
            )


def _is_batch_script(environment: Mapping[str, str]) -> bool:
    return environment.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in environment
