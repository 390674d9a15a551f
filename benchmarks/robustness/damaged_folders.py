"""Damages run folders, students and caches in many ways, and looks at what the next command makes of it: a refusal in a line,
or a line that tells and the right result, or for what can be made again the right result; never another result, a traceback or
a signal.

    python benchmarks/robustness/damaged_folders.py

The result is `benchmarks/results/robustness_damaged_folders.json`.
"""

from __future__ import annotations

import collections
import datetime
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # forks of a process with threads hang
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tables import machine, write_json

from crossdistil.tests import damages
from crossdistil.tests.kill_points import command, content, forked
from crossdistil.tests.wrong_input_files import crossdistil, write_files

RESULT = Path(__file__).resolve().parents[1] / "results" / "robustness_damaged_folders.json"
SETS = ["--set", "stages.0.train.evaluate_every=2", "--set", "stages.0.train.steps=6", "--set", "teacher_cache.use=always"]


class Bench:
    """A finished and an unfinished run with their cache, to be damaged."""

    def __init__(self, root: Path):
        self.root, self.files = root, write_files(root / "files")
        self.log, self.work, self.kept = root / "log", root / "work", root / "kept"
        os.environ["CROSSDISTIL_CACHE"] = str(self.work / "cache")
        self.run = ["run", self.files.recipe, *SETS, "--out", self.work / "run"]
        # Not in a fork: what it loads (most of the time that a run takes) is then loaded for all forks.
        assert crossdistil(*self.run).code == 0
        assert forked(command("data", "mlm", *self.mlm), self.log) == 0, self.log.read_text()
        self.right = self.weights()
        self.records = content(self.work / "mlm")
        shutil.copytree(self.work, self.kept)
        (state,) = (self.work / "run" / "state").iterdir()
        self.state = state.relative_to(self.work / "run")

    @property
    def mlm(self) -> list[object]:
        text = self.root / "text"
        text.write_text("the film is good\nthe film is bad\n\na fine film\nand a poor film\n")
        vocabulary = self.files.teacher / "vocab.txt"
        return ["--data", text, "--vocabulary", vocabulary, "--out", self.work / "mlm", "--processes", "1", "--dupe-factor", "2"]

    def weights(self) -> str:
        return content(self.work / "run" / "student")["model.safetensors"]

    def reset(self, unfinished: bool) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self.kept, self.work)
        if unfinished:
            (self.work / "run" / "result.json").unlink()
            shutil.rmtree(self.work / "run" / "student")

    def outcome(self, name: str, arguments: list[object], right) -> str:
        """How the next command took it: refused, told or repaired. Raises AssertionError for all else."""
        code = forked(command(*arguments), self.log)
        text = self.log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.startswith("crossdistil: error: ")]
        assert code in (0, 2) and "Traceback" not in text, f"{name}: ended with {code}:\n{text}"
        if code == 2:
            assert len(lines) == 1 and len(lines[0]) < 1000, f"{name}: {lines}"
            return "refused"
        told = any(words in text for words in ("is not as", "are not as", "damaged", "earlier version", "made again",
                                               "no saved state", "on purpose", "written again", "left out", "is no line"))
        assert right(), f"{name}: another result{', though told' if told else ', and not a word'}:\n{text}"
        return "told" if told else "repaired"


def cases(bench: Bench):
    """(name, whether the run is unfinished, damage, the next command, whether its result is right)."""
    run, state = bench.work / "run", bench.state
    resume = [*bench.run, "--resume"]

    def right() -> bool:
        return bench.weights() == bench.right

    for file in ("parameters.safetensors", "optimizer.safetensors", "best.safetensors", "state.json", "checksums.json"):
        if (bench.kept / "run" / state / file).exists():
            for kind, damage in damages.DAMAGES.items():
                yield f"{file}: {kind}", True, lambda path=run / state / file, damage=damage: damage(path), resume, right
    for file in ("run.json", "recipe.yaml", "metrics.jsonl"):
        for kind, damage in damages.DAMAGES.items():
            yield f"{file}: {kind}", True, lambda path=run / file, damage=damage: damage(path), resume, right
    for file in ("parameters.safetensors", "optimizer.safetensors"):
        for kind, change in damages.ARRAYS.items():
            path = run / state / file
            yield f"{file}, older: {kind}", True, lambda path=path, change=change: damages.arrays(change)(path), resume, right
            yield f"{file}: {kind}", True, lambda path=path, change=change: damages.arrays(change, False)(path), resume, right
    notes = run / state / "state.json"
    for kind, change in damages.NOTES.items():
        yield f"state.json, older: {kind}", True, lambda change=change: damages.noted(change)(notes), resume, right
    swap = damages.swap("parameters.safetensors", "optimizer.safetensors")
    yield "swapped files", True, lambda: swap(run / state), resume, right
    copied = damages.copied("parameters.safetensors", "best.safetensors")
    yield "a file too many", True, lambda: copied(run / state), resume, right
    yield "an older state", True, lambda: damages.older(run / state), resume, right
    yield "no state", True, lambda: shutil.rmtree(run / "state"), resume, right
    yield "a state of another step", True, lambda: (run / state).rename(run / "state" / "step-00000003"), resume, right
    yield "state is a file", True, lambda: (shutil.rmtree(run / "state"), (run / "state").write_text("x")), resume, right
    yield "a state that is empty", True, lambda: (shutil.rmtree(run / state), (run / state).mkdir()), resume, right
    for kind, damage in damages.DAMAGES.items():
        yield f"result.json: {kind}", False, lambda damage=damage: damage(run / "result.json"), resume, right
        answers = run / "predictions.safetensors"
        yield f"{answers.name}: {kind}", False, lambda path=answers, damage=damage: damage(path), ["compare", run], right
    student, back = run / "student", bench.work / "back"
    reading = ["convert", student, back, "--to", "pytorch"]
    names = sorted(path.name for path in (bench.kept / "run" / "student").iterdir())

    def converted() -> bool:
        return content(back)["model.safetensors"] == bench.converted

    bench.reset(False)
    assert forked(command(*reading), bench.log) == 0, bench.log.read_text()
    bench.converted = content(back)["model.safetensors"]
    for file in names:
        for kind, damage in damages.DAMAGES.items():
            yield f"student/{file}: {kind}", False, lambda path=student / file, damage=damage: damage(path), reading, converted
    evaluation = ["evaluate", student, "--data", bench.files.data]
    for kind, damage in damages.DAMAGES.items():
        path = student / "model.safetensors"
        spoil = lambda path=path, damage=damage: damage(path)  # noqa: E731
        yield f"evaluate, model.safetensors: {kind}", False, spoil, evaluation, lambda: True
    for path in sorted(path for path in (bench.kept / "cache").rglob("*") if path.is_file() and path.name != ".lock"):
        place = bench.work / path.relative_to(bench.kept)
        kind_of_entry = path.relative_to(bench.kept / "cache").parts[0]
        fresh = [*bench.run[:-1], bench.work / "fresh"]

        def same() -> bool:
            return content(bench.work / "fresh" / "student")["model.safetensors"] == bench.right

        for kind, damage in damages.DAMAGES.items():
            spoil = lambda place=place, damage=damage: damage(place)  # noqa: E731
            yield f"cache {kind_of_entry}/{path.name}: {kind}", False, spoil, fresh, same
    for file in sorted(path.name for path in (bench.kept / "mlm").iterdir()):
        again = ["data", "mlm", *bench.mlm, "--resume"]
        for kind, damage in damages.DAMAGES.items():
            path = bench.work / "mlm" / file
            yield f"records {file}: {kind}", False, lambda path=path, damage=damage: damage(path), again, (
                lambda: content(bench.work / "mlm") == bench.records
            )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(os.path.realpath(folder)))
        counts: collections.Counter = collections.Counter()
        problems, silent = [], []
        for name, unfinished, damage, arguments, right in list(cases(bench)):
            bench.reset(unfinished)
            damage()
            try:
                how = bench.outcome(name, arguments, right)
            except AssertionError as error:
                problems.append(str(error)[:300])
                how = "wrong"
                print(f"WRONG {str(error)[:300]} ... {str(error)[-300:]}", flush=True)
            counts[how] += 1
            if how == "repaired":
                silent.append(name)
        total = sum(counts.values())
        print(f"{total} kinds of damage: {dict(counts)}")
        print(f"the right result without a word: {len(silent)}")
    write_json(
        RESULT,
        {
            "machine": machine(),
            "date": datetime.date.today().isoformat(),
            "damages": total,
            **counts,
            "right result without a word": silent,
            "wrong": problems,
        },
    )
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
