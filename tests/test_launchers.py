"""Which process of a run this is, by what launchers leave in the environment."""

from __future__ import annotations

import pytest

from crossdistil.backends.registry import load_engine
from crossdistil.core.app.launchers import find_place, refuse_place
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.place import ALONE, Place

TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "TORCHELASTIC_RUN_ID": "none"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "77"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        (TORCHRUN, Place(3, 4, 1, "torchrun")),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, Place(1, 2, 1, "the launcher")),
        ({"MS_WORKER_NUM": "8", "MS_ROLE": "MS_WORKER", "MS_NODE_ID": "5", "DEVICE_ID": "1"}, Place(5, 8, 1, "msrun")),
        (SRUN, Place(2, 4, 0, "srun")),
        ({}, ALONE),
        ({"WORLD_SIZE": "1", "RANK": "0"}, ALONE),
        ({"WORLD_SIZE": "2"}, ALONE),  # left in an environment, by no launcher
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ALONE),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "ENVIRONMENT": "BATCH"}, ALONE),  # the script of a job is no task
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, ALONE),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, ALONE),
    ],
)
def test_the_place_of_a_process(variables, place):
    assert find_place(dict(variables)) == place


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, r"Open MPI \(OMPI_COMM_WORLD_SIZE=4\)"),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, r"MPI \(PMI_SIZE=4\)"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "LOCAL_RANK: missing"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}, "rank 2 of 2 processes, expected 0 to 1"),
        ({"WORLD_SIZE": "two", "RANK": "1", "LOCAL_RANK": "0"}, "WORLD_SIZE: got 'two', expected a whole number"),
        ({"MS_WORKER_NUM": "8", "MS_ROLE": "MS_WORKER"}, "msrun: the processes have no ranks"),
    ],
)
def test_what_cannot_be_a_place_is_refused(variables, message):
    with pytest.raises(CrossdistilError, match=message) as caught:
        find_place(dict(variables))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node[03-05,9],other", "node03"), ("gpu-a,gpu-b", "gpu-a"), ("gpu7", "gpu7"), ("c[1,4]-ib", "c1-ib"), (None, "127.0.0.1")],
)
def test_tasks_of_srun_meet_at_the_first_host(nodes, first):
    environment = SRUN | ({} if nodes is None else {"SLURM_STEP_NODELIST": nodes})
    find_place(environment)
    added = {name: environment[name] for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")}
    assert added == {"MASTER_ADDR": first, "MASTER_PORT": "20077", "RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("launcher", "backend", "instead"),
    [
        ("msrun", "torch", "torchrun"),
        ("msrun", "oneflow", "python -m oneflow.distributed.launch"),
        ("torchrun", "mindspore", "msrun"),
    ],
)
def test_a_launcher_of_another_framework_is_refused(launcher, backend, instead):
    with pytest.raises(CrossdistilError) as caught:
        load_engine(backend, EngineOptions(place=Place(1, 2, 1, launcher)))
    assert str(caught.value) == f"{launcher}: cannot start processes of {backend}; take {instead}, srun or --devices N"


def test_a_command_that_starts_processes_is_started_alone(monkeypatch, said):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CrossdistilError, match="crosscheck: torchrun has started this as one of 4 processes"):
        refuse_place("crosscheck")
    code, output, errors = said("run", "kd", "--devices", "2")
    assert (code, output) == (2, "") and errors.startswith(
        "crossdistil: error: rank 3 of 4: --devices 2: torchrun has started this"
    )
