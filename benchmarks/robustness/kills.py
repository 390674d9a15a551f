"""Kills `convert`, `convert --overwrite`, `data mlm`, `data export`, `run` and `crosscheck` at their file operations, runs the
next command, and checks that it goes on to the same bytes and leaves nothing behind.

    python benchmarks/robustness/kills.py [--every N] [--at N,N] [--backend torch] [COMMAND ...]

`run of KIND` is a run of a recipe of names, answers, embeddings, rankings, an LLM's file or text, killed also where a training
step begins; `--backend` is theirs, and this Python must have it. MindSpore runs up to four steps in one call of a compiled graph,
and saves behind six. `--every N` takes every Nth operation of runs and `data mlm`; `--at 3,20` takes these of the runs of kinds,
counted from their first step; those of `crosscheck` are the ones outside of its workers. The results are
`benchmarks/results/robustness_kills.json` and, of the runs of kinds, `robustness_kills_kinds.json` and
`robustness_kills_kinds_BACKEND.json`.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # forks of a process with threads hang
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tables import machine, write_json

from crossdistil.tests.kill_points import command, content, counted, forked, killed_at, steps_told
from crossdistil.tests.kind_recipes import KIND_RECIPES, write_kind
from crossdistil.tests.mlm_cases import write_corpus, write_vocabulary
from crossdistil.tests.wrong_input_files import crossdistil, write_files

RESULTS, _KIND = Path(__file__).resolve().parents[1] / "results", "run of "
_TIMES = {"tokens_per_second", "wall_seconds", "training_seconds", "peak_memory_mb", "seconds"}
# A call of MindSpore's goes to the next event: six steps are a sink of four and one of two.
_SUNK = {"steps": 12, "log_every": 12, "save_every": 6, "evaluate_every": 6}


def sweep(place: Path, first, again, judge, reset, numbers: Iterable[int] = itertools.count(1)) -> dict[str, int]:
    """Kill `first` at these points below `place`, run `again`, and let `judge(place)` compare. `reset()` comes before each. It
    ends where `first` was not killed."""
    log, killed, last = place.with_name("log"), 0, 0
    for last in numbers:
        reset()
        if not killed_at(place, last, first, log):
            judge()
            break
        killed += 1
        code = forked(again, log)
        assert code == 0, f"point {last}: the next command ended with {code}:\n{log.read_text(errors='replace')}"
        try:
            judge()
        except AssertionError as error:
            raise AssertionError(f"point {last}: {error}") from error
    return {"operations": last - 1, "kills": killed}


def conversions(root: Path, files, overwrite: bool, every: int) -> dict[str, int]:
    """A conversion, also into a place that holds another one; `again` is the same command."""
    place = root / "convert"
    out, old = place / "out", root / "old"
    source = files.teacher
    convert = command("convert", source, out, "--to", "tf", "--overwrite")
    assert forked(command("convert", source, old / "out", "--to", "mindspore"), root / "log") == 0
    assert forked(convert, root / "log") == 0
    new, before = content(place), content(old)

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(old, place) if overwrite else place.mkdir()

    def again() -> None:
        found = {name: value for name, value in content(place).items() if name == "out" or name.startswith("out/")}
        assert found in (before, new) or (not overwrite and not found), f"neither old nor new: {sorted(found)}"
        convert()

    return sweep(place, convert, again, lambda: same(content(place), new), reset, each(every))


def each(every: int) -> Iterable[int]:
    """Every Nth point, from the middle of the first N on."""
    return itertools.count(1 + every // 2, every)


def records(root: Path, files, every: int) -> dict[str, int]:
    """`data mlm` in several shards, of which those that are done are kept."""
    vocabulary, text = write_vocabulary(root / "vocabulary"), write_corpus(root / "text", 150)
    lines = text.read_text()
    text.write_text(lines * ((5 << 18) // len(lines) + 1))
    place, whole = root / "mlm", root / "whole"
    arguments = ["--data", text, "--vocabulary", vocabulary, "--dupe-factor", 1, "--shard-mib", 1, "--processes", 1]
    assert forked(command("data", "mlm", *arguments, "--out", whole), root / "log") == 0
    expected = content(whole)
    first = command("data", "mlm", *arguments, "--out", place / "out")
    again = command("data", "mlm", *arguments, "--out", place / "out", "--resume")

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

    return sweep(place, first, again, lambda: same(content(place / "out"), expected), reset, each(every))


def export(root: Path, files, every: int) -> dict[str, int]:
    """`data export`, whose result is whole or not there; `again` writes beside it where it is there."""
    place = root / "export"
    arguments = ["--task", "sst-2", "--data", files.data, "--tokenizer", files.teacher, "--format", "tfrecord"]
    assert forked(command("data", "export", *arguments, "--out", root / "exported"), root / "log") == 0
    expected = content(root / "exported")
    first = command("data", "export", *arguments, "--out", place / "out")

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

    return sweep(place, first, first, lambda: same(children(place), {"out": expected}), reset, each(every))


def runs(root: Path, recipe: Path, every: int, *more: object, backend: str = "torch", at: Sequence[int] = ()) -> dict[str, int]:
    """A run and its cache, gone on with by `--resume`. `at` are the points where it is killed, from its first step on, instead of
    every Nth."""
    place = root / "run"
    os.environ["CROSSDISTIL_CACHE"] = str(place / "cache")
    arguments = ["run", recipe, "--backend", backend, "--device", "cpu", *more]
    first, again = command(*arguments, "--out", place / "run"), command(*arguments, "--out", place / "run", "--resume")

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

    def resume() -> None:
        complete = (place / "run" / "result.json").exists()
        try:
            again()
        except SystemExit as end:
            sys.exit(0 if complete and end.code == 2 else end.code)  # it was killed after its end

    reset()
    if backend == "torch":  # not in a fork: what it loads (most of the time that a run takes) is then loaded for all forks
        assert crossdistil(*arguments, "--out", place / "run").code == 0
        reset()
    operations, begin = counted(place, first, root / "log")
    expected, cache = run_content(place / "run"), {path.name for path in (place / "cache").glob("*/*")}

    def judge() -> None:
        same(run_content(place / "run"), expected)
        left = {path.name for path in (place / "cache").glob("*/*")} - cache
        assert not left, f"left in the cache: {left}"

    numbers = [begin + number for number in at] if at else range(1 + every // 2, operations + 1, every)
    return sweep(place, first, resume, judge, reset, numbers) | {"operations": operations}


def crosschecks(root: Path, files, every: int) -> dict[str, int]:
    """A cross-check's own operations, with its workers' work done once."""
    place, done = root / "crosscheck", root / "done"
    arguments = ["crosscheck", files.recipe, "--backends", "torch,oneflow", "--out", place / "out"]
    code = forked(command(*arguments), root / "log")
    assert code in (0, 1), (root / "log").read_text()
    verdict = json.loads((place / "out" / "crosscheck.json").read_text())["verdict"]
    expected = sorted(path.name for path in (place / "out").iterdir())
    shutil.copytree(place, done, ignore=shutil.ignore_patterns("crosscheck.json", "report.html"))

    def go() -> None:
        try:
            command(*arguments, "--resume")()
        except SystemExit as end:
            if end.code == 2 and (place / "out" / "report.html").exists():
                sys.exit(0)  # it was killed after its end
            sys.exit(0 if end.code == 1 else end.code)

    def judge() -> None:
        assert json.loads((place / "out" / "crosscheck.json").read_text())["verdict"] == verdict
        same(sorted(path.name for path in (place / "out").iterdir()), expected)

    def reset() -> None:
        shutil.rmtree(place)
        shutil.copytree(done, place)

    return sweep(place, go, go, judge, reset, each(every))


def run_content(folder: Path) -> dict[str, object]:
    """What a run folder holds, without what the clock decides."""
    found: dict[str, object] = dict(content(folder))
    for name in ("report.html", "latency.json"):  # made after the run's end, of all the others
        found.pop(name, None)
    for path in [folder / "result.json", *folder.glob("state/*/state.json")]:
        found[str(path.relative_to(folder))] = untimed(json.loads(path.read_text()))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found["metrics.jsonl"] = [untimed(json.loads(line)) for line in lines]
    return {name: value for name, value in found.items() if not (name.startswith("state/") and name.endswith("checksums.json"))}


def untimed(value: object) -> object:
    """Without times, and what depends on them."""
    if isinstance(value, dict):
        return {key: untimed(each) for key, each in value.items() if key not in _TIMES and key != "metrics"}
    return [untimed(each) for each in value] if isinstance(value, list) else value


def children(folder: Path) -> dict[str, dict[str, str]]:
    """The content of each folder in a folder, without temporaries, which the next command that writes there removes."""
    return {path.name: content(path) for path in folder.iterdir()}


def same(found: object, expected: object) -> None:
    """Assert that they are equal, with what differs."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = sorted(name for name in {**found, **expected} if found.get(name) != expected.get(name))
        assert not names, f"differs: {[(name, found.get(name), expected.get(name)) for name in names[:3]]}"
    assert found == expected, f"got {found}, expected {expected}"


COMMANDS = {
    "convert": lambda root, files, every: conversions(root, files, False, 1),
    "convert --overwrite": lambda root, files, every: conversions(root, files, True, 1),
    "data mlm": records,
    "data export": lambda root, files, every: export(root, files, 1),
    "run": lambda root, files, every: runs(root, files.recipe, every, "--set", "stages.0.train.evaluate_every=3"),
    "crosscheck": lambda root, files, every: crosschecks(root, files, 1),
}
KINDS = [f"{_KIND}{name}" for name in KIND_RECIPES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join([*COMMANDS, *KINDS])}; default: all")
    parser.add_argument("--every", type=int, default=1, help="of runs and data mlm: every Nth operation")
    at = {"type": lambda text: [int(number) for number in text.split(",")], "default": []}
    parser.add_argument("--at", **at, help="of the runs of kinds: 3,20: these operations from the first step on, instead")
    parser.add_argument("--backend", default="torch", help="of the runs of kinds")
    options = parser.parse_args()
    if (options.backend != "torch" or options.at) and not all(name.startswith(_KIND) for name in options.commands or [""]):
        parser.error("--backend, --at: are of the runs of kinds; name them")
    steps_told()
    for name in options.commands or [*COMMANDS, *KINDS]:
        kind = name.removeprefix(_KIND) if name.startswith(_KIND) else None
        of = "" if kind is None else "_kinds" if options.backend == "torch" else f"_kinds_{options.backend}"
        result = RESULTS / f"robustness_kills{of}.json"
        with tempfile.TemporaryDirectory() as folder:
            root, started = Path(os.path.realpath(folder)), time.perf_counter()
            os.environ["CROSSDISTIL_CACHE"] = str(root / "cache")
            if kind is None:
                found = COMMANDS[name](root, write_files(root / "files"), options.every)
            else:
                train, more = (_SUNK, ("--steps-per-call", 4, "--no-latency")) if options.backend == "mindspore" else ({}, ())
                recipe = write_kind(root / kind, kind, **train)
                found = runs(root, recipe, options.every, *more, backend=options.backend, at=options.at)
            print(f"{name}: {found}, {time.perf_counter() - started:.0f} s", flush=True)
        kept = json.loads(result.read_text())["commands"] if result.exists() else {}
        kept[name] = {**found, "went on to the same bytes": found["kills"], "left behind": 0}
        about = {"backend": options.backend, "machine": machine(), "date": datetime.date.today().isoformat()}
        write_json(result, {**about, "commands": kept})


if __name__ == "__main__":
    main()
