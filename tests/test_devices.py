"""Runs of two processes as users start them: the command's own start, torchrun, srun, two machines; what they print, how they
end, and that they go on. Each launch takes some seconds, so that each carries many checks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from crossdistil.core.app.devices import _free_port
from crossdistil.core.processes import python_command
from crossdistil.tests.wrong_input_files import recipe_tree, write_model, write_task

pytestmark = [pytest.mark.backend, pytest.mark.only_backend("torch")]
MARK = "CROSSDISTIL_TEST_OF"
SECONDS = 600
TRAIN = {"steps": 12, "batch_size": 8, "gradient_accumulation": 2, "log_every": 1, "save_every": 2, "evaluate_every": 6}


class Runs:
    """A folder with a recipe, and `crossdistil run` in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        tree = recipe_tree(write_task(folder / "data", 32), write_model(folder / "teacher"))
        for name, more in (("short.yaml", {}), ("long.yaml", {"steps": 100_000, "evaluate_every": 100_000})):
            tree["stages"][0]["train"] |= TRAIN | more
            with (folder / name).open("w") as file:
                YAML().dump(tree, file)

    def start(self, name: str, *arguments: str, launcher: tuple[str, ...] = (), **variables: str) -> subprocess.Popen:
        program = [*launcher, "-m", "crossdistil"] if launcher else python_command(sys.executable, "crossdistil")
        command = [*program, "run", *arguments, "--device", "cpu", "--no-latency", "--no-report"]
        environment = {**os.environ, MARK: str(self.folder), "CROSSDISTIL_CACHE": str(self.folder / "cache"), **variables}
        with (self.folder / f"{name}.out").open("w") as output, (self.folder / f"{name}.err").open("w") as errors:
            return subprocess.Popen(
                command, env=environment, stdout=output, stderr=errors, cwd=self.folder, start_new_session=True
            )

    def said(self, name: str) -> tuple[list[str], list[str]]:
        """Lines on standard output, and those of this program on standard errors."""
        output, errors = ((self.folder / f"{name}.{kind}").read_text().splitlines() for kind in ("out", "err"))
        return output, [line.removeprefix("crossdistil: ") for line in errors if line.startswith("crossdistil: ")]

    def digest(self, name: str) -> str:
        return hashlib.sha256((self.folder / name / "student" / "model.safetensors").read_bytes()).hexdigest()

    def wait_for_state(self, name: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not list((self.folder / name / "state").glob("step-*")):
            assert time.monotonic() < deadline, self.said(name)
            time.sleep(0.05)

    def left(self) -> list[int]:
        """Processes that were started from here and are still there."""
        found = []
        for place in Path("/proc").iterdir():
            if place.name.isdecimal():
                with contextlib.suppress(OSError):
                    mine = f"{MARK}={self.folder}\0".encode() in (place / "environ").read_bytes()
                    if mine and (place / "stat").read_text().rpartition(") ")[2][0] != "Z":
                        found.append(int(place.name))
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    found = Runs(tmp_path_factory.mktemp("runs"))
    yield found
    for pid in found.left():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(runs):
    """A run of two processes, not interrupted: the digest of its student."""
    assert runs.start("whole", "short.yaml", "--devices", "2", "--out", "whole").wait(SECONDS) == 0, runs.said("whole")
    return runs.digest("whole")


def test_one_speaks_and_the_launcher_does_not_matter(runs, whole):
    output, errors = runs.said("whole")
    assert not errors and output.count("backend: torch on cpu, fp32") == 1 and output[-1].endswith("written to whole")
    log = (runs.folder / "whole" / "logs" / "rank-1.log").read_text().splitlines()
    assert any("step 12, dev accuracy" in line for line in log)
    assert not runs.left()
    launcher = (str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2")
    assert runs.start("other", "short.yaml", "--out", "other", launcher=launcher).wait(SECONDS) == 0, runs.said("other")
    assert runs.digest("other") == whole
    # But for times, caches, and what is said where it takes long.
    same, other = (
        [line for line in lines if not any(word in line for word in ("teacher: logits", " s; written", "/12", " ..."))]
        for lines in (output, runs.said("other")[0])
    )
    assert same == other


def test_a_machine_that_dies_ends_the_run_and_it_goes_on(runs, whole):
    machines = ("--devices", "1", "--nodes", "2", "--master", f"127.0.0.1:{_free_port()}", "--out", "dead")
    zero = runs.start("dead", "short.yaml", *machines, "--node-rank", "0")
    one = runs.start("dead1", "short.yaml", *machines, "--node-rank", "1")
    runs.wait_for_state("dead")
    one.kill()  # with it, all that it has started
    killed = time.monotonic()
    code, seconds = zero.wait(SECONDS), time.monotonic() - killed
    if code:  # it was not done already
        [line] = runs.said("dead")[1]
        assert code == 1 and seconds < 60
        assert line.startswith("error: rank 1 of 2 (process ") and "has ended without a word; --resume goes on" in line
        again = runs.start("again", "--resume", "--out", "dead", "--devices", "2")
        assert again.wait(SECONDS) == 0, runs.said("again")
    assert runs.said("dead1")[0] == ["machine 1 of 2 (from 0): ranks 1 to 1; machine 0 (127.0.0.1) tells how the run goes"]
    assert runs.digest("dead") == whole and not runs.left()


def test_tasks_of_srun_meet_and_a_signal_to_one_saves_once(runs):
    slurm = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": str(os.getpid())}
    slurm["SLURM_STEP_NODELIST"] = "localhost"
    tasks = [
        runs.start(f"task{rank}", "long.yaml", "--out", "srun", **slurm, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
        for rank in range(2)
    ]
    runs.wait_for_state("srun")
    tasks[1].terminate()
    assert [task.wait(SECONDS) for task in tasks] == [143, 143]
    [state] = (runs.folder / "srun" / "state").iterdir()
    step = int(state.name[5:])
    assert runs.said("task0")[1] == [f"terminated; step {step:,} is saved in srun; --resume goes on from there"]
    assert runs.said("task1") == ([], []) and not runs.left()
    log = (runs.folder / "srun" / "logs" / "rank-1.log").read_text()
    assert log.count("saving after the step that is under way") == 1


def test_who_does_not_come_is_named(runs):
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": str(_free_port())}
    alone = runs.start("alone", "short.yaml", "--out", "alone", **variables, CROSSDISTIL_WAIT_SECONDS="1")
    assert alone.wait(SECONDS) == 2
    assert runs.said("alone")[1] == [
        "error: only 1 of 2 processes came within 1 s; missing: rank 1. If none is to come, unset RANK and WORLD_SIZE"
    ]
    assert not (runs.folder / "alone").exists() and not runs.left()
