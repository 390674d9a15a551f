"""Launchers that start a program several times, each copy as one process of many: which of them this process is,
and what it leaves to the first one to say.

torchrun and OneFlow's launcher leave RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the environment, msrun its MS_*
variables, and `--devices` (`core.app.devices`) the same as the framework's own launcher. SLURM's srun leaves its own, from which
those that the frameworks read are made: SLURM_STEP_ID is what a task of srun has, and the script of a job has not.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Mapping, MutableMapping

from ..errors import CrossdistilError
from ..place import ALONE, DEVICES, Place

_MPI = {"Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), "MPI": ("PMI_SIZE", "PMI_RANK")}
_FIRST_SECONDS = 1.0
LAUNCHED = "CROSSDISTIL_LAUNCHED"
"""Set, to something that no other run has, for processes that were started by `--devices`."""
SCHEDULER = "MS_SCHED"
"""MindSpore's MS_ROLE of a process that computes nothing, and only lets the others find each other."""


def find_place(environment: MutableMapping[str, str] = os.environ) -> Place:
    """Where a launcher has put this process. For srun, the variables that torch and OneFlow read are added to the environment.
    Raises CrossdistilError for MPI's launchers, and for variables that contradict each other."""
    if "MS_ROLE" in environment and "MS_WORKER_NUM" in environment:
        rank = _number(environment, "MS_NODE_ID", _number(environment, "RANK_ID", -1))
        if environment["MS_ROLE"] != SCHEDULER and rank < 0:
            raise CrossdistilError("msrun: the processes have no ranks yet; give it --node_rank")
        size, local = _number(environment, "MS_WORKER_NUM", 1), _number(environment, "DEVICE_ID", rank)
        return _place(environment, "msrun", max(rank, 0), size, local)
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, size, local = (_number(environment, name, -1) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        if size > 1 and local < 0:
            raise CrossdistilError(f"LOCAL_RANK: missing; WORLD_SIZE={size} says that this is one of {size} processes")
        return _place(environment, "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "the launcher", rank, size, local)
    if "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        size = _number(environment, "SLURM_STEP_NUM_TASKS", _number(environment, "SLURM_NTASKS", 1))
        if size > 1:
            return _from_srun(environment, size)
    for launcher, (size, rank) in _MPI.items():
        if rank in environment and _number(environment, size, 1) > 1:
            remedy = "start with --devices, torchrun, msrun or srun"
            raise CrossdistilError(f"{launcher} ({size}={environment[size]}): is not known how to join; {remedy}")
    return ALONE


def refuse_place(command: str) -> None:
    """Raise CrossdistilError where a launcher has started this as one of several processes: for a command that starts its own."""
    place = find_place()
    if place.size > 1:
        raise CrossdistilError(
            f"{command}: {place.launcher} has started this as one of {place.size} processes, but {command} starts its own; "
            "start it alone, once"
        )


def _place(environment: Mapping[str, str], launcher: str, rank: int, size: int, local_rank: int) -> Place:
    if size <= 1:
        return ALONE
    if not 0 <= rank < size:
        raise CrossdistilError(f"{launcher}: this is rank {rank} of {size} processes, expected 0 to {size - 1}")
    if LAUNCHED in environment:
        launcher = DEVICES
    return Place(rank, size, max(local_rank, 0), launcher, _number(environment, "LOCAL_WORLD_SIZE", 0))


def _from_srun(environment: MutableMapping[str, str], size: int) -> Place:
    rank, local = _number(environment, "SLURM_PROCID", 0), _number(environment, "SLURM_LOCALID", 0)
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    environment.setdefault("MASTER_ADDR", _first_host(nodes))
    # Two steps on one machine must not meet; the ports below 32768 are nobody's by chance.
    number = _number(environment, "SLURM_JOB_ID", 0) + 997 * _number(environment, "SLURM_STEP_ID", 0)
    environment.setdefault("MASTER_PORT", str(20000 + number % 12000))
    environment |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(local)}
    if _number(environment, "SLURM_STEP_NUM_NODES", 0) == 1:
        environment["LOCAL_WORLD_SIZE"] = str(size)
    return _place(environment, "srun", rank, size, local)


def _first_host(nodes: str) -> str:
    """The first of SLURM's list of hosts: `rack[1-2]node[03-05,9],other` gives `rack1node03`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes.strip())[0]
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"-?\d{1,10}", text):
        raise CrossdistilError(f"{name}: got '{text[:40]}', expected a whole number")
    return int(text)


def be_quiet(place: Place) -> None:
    """What this process prints is not for the terminal, since the first process prints the same."""
    if place.rank:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        logging.disable(logging.WARNING)


def let_the_first_speak(place: Place) -> str:
    """Before the processes have met, each says its own errors, which the first one mostly has as well: the launcher, which ends
    all when one ends, gets the time to do so. Returns what is to stand before the error of this process."""
    if not place.rank:
        return ""
    if place.launcher != DEVICES:
        time.sleep(_FIRST_SECONDS)
        return f"rank {place.rank} of {place.size}: "
    return ""
