"""Several processes of a backend, one launch of which carries many checks.

`start` runs this file as a program in each process: it makes one engine, joins the others as `crossdistil run` does, does what
it was asked to by name, and the first process writes the arrays that came out. The tests do the same alone, in their own
process, and compare. What can be asked for are the cases of `several_cases` and the parts of runs of `several_resumed`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors.numpy import load_file, save_file

from crossdistil.backends.registry import interpreter, load_engine
from crossdistil.core.app import devices
from crossdistil.core.app.joining import join
from crossdistil.core.app.launchers import find_place
from crossdistil.core.app.progress import TrainingProgress
from crossdistil.core.app.run import check_same
from crossdistil.core.app.teaching import Teaching
from crossdistil.core.engine import Engine, EngineOptions
from crossdistil.core.job import prepare
from crossdistil.core.models.theseus import predecessor_tensors
from crossdistil.core.processes import child_environment, end_with_parent, python_command
from crossdistil.core.training import Trainer
from crossdistil.core.world import World
from crossdistil.tests.several_cases import Case, case_of
from crossdistil.tests.several_resumed import PARTS, go_on

Arrays = dict[str, np.ndarray]
SECONDS = 1200
"""As long as they may take: compiling MindSpore's cases takes minutes where others work too."""


class _Memory:
    """The run folder of a training that leaves nothing on the disk."""

    path = Path("memory")

    def append(self, line) -> None:
        pass

    def save_state(self, state) -> None:
        pass


class _Recorded:
    """A train step, the loss values of each step that it has run, and the sums over all processes that it has asked its framework
    for: how many bytes each."""

    def __init__(self, step, backend: str):
        self._step, self._backend, self.values, self.sums = step, backend, [], []
        self.parameters, self.state, self.state_layout = step.parameters, step.state, step.state_layout
        self.not_finite = step.not_finite
        self.skips_overflow = step.skips_overflow

    @property
    def communication(self) -> float:
        return self._step.communication

    def run(self, *arguments):
        with _counted(self._backend, self.sums):
            self._metrics = self._step.run(*arguments)
        return self

    def fetch(self):
        self.values.append(self._metrics.fetch())
        return self.values[-1]


@contextlib.contextmanager
def _counted(backend: str, sums: list[int]) -> Iterator[None]:
    """Append the bytes of each sum that a framework is asked for. MindSpore's are inside compiled graphs."""
    if backend == "mindspore":
        yield
        return
    if backend == "torch":
        import torch.distributed as owner

        name = "all_reduce"
    else:
        import oneflow

        owner, name = oneflow._C, "local_all_reduce"
    plain = getattr(owner, name)

    def counting(tensor, *arguments, **options):
        sums.append(tensor.numel() * tensor.element_size())
        return plain(tensor, *arguments, **options)

    setattr(owner, name, counting)
    yield
    setattr(owner, name, plain)


def train(case: Case, files: Path, engine: Engine, world: World) -> Arrays:
    """All stages of a case on this process's share: of each stage `values/STAGE` (steps, 1 + terms), `sums/STAGE` (sums), the
    bytes of each sum over all processes, and `floats/STAGE` (3,), how many numbers a gradient has, terms there are, and
    statistics; and the parameters at the end. It is `core.app.run` without a folder and without evaluation."""
    recipe = case.load(files, engine.length_step)
    job = dataclasses.replace(prepare(recipe, case.recipe, engine.length_step), share=world.share)
    job.data.world = world
    check_same(world, job)
    console = Console(quiet=True)
    teaching, found, first = Teaching(job, engine, console), {}, 0
    if engine.name == "torch" and engine.collective is not None:
        engine.collective.bucket_bytes = case.bucket_bytes
    parameters = {**job.student.parameters, **job.projections}
    for index in range(len(recipe.stages)):
        stage = teaching.stage(index, False)
        parameters = {**parameters, **stage.new_projections(parameters, recipe.seed)}
        held = dict(parameters)
        if stage.objective.replacement is not None:
            teacher = job.teachers[job.context.teacher(None)]
            held |= predecessor_tensors(teacher.config, teacher.parameters)
        objective = stage.objective
        frozen, optimizer = teaching.frozen(stage), stage.optimizer(held)
        step = _Recorded(engine.train_step(objective.function, held, frozen, optimizer, objective.statistics), engine.name)
        with TrainingProgress(case.recipe, console) as progress:
            outcome = Trainer(stage, recipe.seed, first, parameters, step, None, _Memory(), progress, world).run()
        parameters, first = outcome.parameters, first + outcome.steps
        found[f"values/{stage.name}"] = np.concatenate(step.values)
        found[f"sums/{stage.name}"] = np.array(step.sums, np.int64)
        differentiated = sum(array.size for array in optimizer.split(held)[0].values())
        statistics = sum(term.statistics_size for term in objective.terms if term.scope == "sums")
        if any(term.scope == "vectors" for term in objective.terms):  # the student's, the teacher's and a mask
            texts = stage.batches.parts * -(-stage.section.train.batch_size // stage.batches.parts) * job.context.members
            statistics += texts * (job.context.student.hidden_size + job.context.teachers["teacher"].hidden_size + 1)
        found[f"floats/{stage.name}"] = np.array([differentiated, len(objective.terms) + len(objective.entropies), statistics])
        world.same(f"{stage.name}: the sums", str(step.sums).encode())
    return found | {f"parameters/{name}": np.asarray(array) for name, array in parameters.items()}


class Engines:
    """The engines of one process, one for each set of options."""

    def __init__(self, backend: str, device: str):
        self._backend, self._device, self._place = backend, device, find_place()
        self._made: dict[tuple, Engine] = {}

    def __call__(self, **options) -> Engine:
        key = tuple(sorted(options.items()))
        if key not in self._made:
            self._made[key] = load_engine(self._backend, EngineOptions(self._device, place=self._place, **options))
        return self._made[key]


def start(
    backend: str, count: int, names: Sequence[str], files: Path, out: Path, device: str = "cpu", seconds: float = SECONDS
) -> Callable[[], dict[str, Arrays]]:
    """Start `count` processes that do what `names` asks for. What is returned waits for them and gives, by name, the arrays
    of the first process."""
    out.mkdir(parents=True, exist_ok=True)
    command = python_command(interpreter(backend), __spec__.name, backend, device, str(files), str(out), *names)
    processes, logs = [], []
    for rank, variables in enumerate(devices._variables(backend, count)):
        logs.append(out / f"rank-{rank}.log")
        with logs[-1].open("w") as log:
            environment = {**child_environment(), **variables}
            output = {"stdout": log, "stderr": subprocess.STDOUT}
            processes.append(subprocess.Popen(command, env=environment, start_new_session=True, **output))

    def finish() -> dict[str, Arrays]:
        try:
            codes = [process.wait(seconds) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        said = "\n".join(f"== rank {rank}\n{log.read_text(errors='replace')}" for rank, log in enumerate(logs))
        assert not any(codes), f"exit codes {codes}\n{said}"
        found: dict[str, Arrays] = {name: {} for name in names}
        for key, array in load_file(out / "arrays.safetensors").items():
            name, _, own = key.partition("|")
            found[name][own] = array
        return found

    return finish


def differences(alone: Arrays, together: Arrays) -> tuple[float, float, float]:
    """The largest difference of a loss value, relative to that value, of a weight, relative to the largest weight, and of what is
    only shown, relative to its value: the gradient's norm and the teachers' entropies, which are sums of what nearly cancels."""
    assert alone.keys() == together.keys()
    loss = weight = only_shown = 0.0
    largest = max(np.abs(array).max() for name, array in alone.items() if name.startswith("parameters/"))
    for name, expected in alone.items():
        found = together[name]
        if name.startswith(("sums/", "floats/")):
            continue
        assert found.shape == expected.shape and np.isfinite(found).all(), name
        distance = np.abs(found.astype(np.float64) - expected)
        if name.startswith("values/"):
            # A small term, often a difference of large numbers, is compared with the total.
            scale = np.maximum(np.abs(expected), 0.1 * np.abs(expected[:, :1]))
            relative = distance / np.maximum(scale, 1e-30)
            values = 1 + int(alone[name.replace("values/", "floats/")][1])
            loss = max(loss, float(relative[:, :values].max()))
            only_shown = max(only_shown, float(relative[:, values:].max(initial=0)))
        else:
            weight = max(weight, float(distance.max() / largest))
    return loss, weight, only_shown


def _work(backend: str, device: str, files: Path, names: Sequence[str]) -> Iterator[tuple[str, Arrays]]:
    engines = Engines(backend, device)
    world = join(engines())
    for name in names:
        print(name, flush=True)
        if name in PARTS:
            yield name, go_on(PARTS[name], files, engines(), world)
        else:
            case = case_of(name)
            yield name, train(case, files, engines(**case.engine), world)
    world.close()


def main() -> None:
    """A process of `start`."""
    end_with_parent()
    backend, device, files, out, *names = sys.argv[1:]
    found = {}
    for name, arrays in _work(backend, device, Path(files), names):
        found |= {f"{name}|{key}": array for key, array in arrays.items()}
    if find_place().rank == 0:
        save_file(found, Path(out) / "arrays.safetensors")


if __name__ == "__main__":
    main()
