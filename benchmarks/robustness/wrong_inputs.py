"""Wrong inputs given to the command line: each ends with clear errors, never with a traceback, a time-out or half a result.

    python benchmarks/robustness/wrong_inputs.py [--count 2400] [--seed 1] [--only COMMAND ...] [--jobs N] [--out FILE] [--add]

Every case is a good command with one thing made wrong (`wrong_input_cases.py`): an option, a key of the recipe, a value, or a
file. The commands and their options are read from the command line itself, the keys from a resolved recipe, the files from a
small world (`wrong_input_world.py`) that is made anew for each case; which wrong thing is drawn from the seed. A case runs
`main()` in a forked child of this process, which has imported everything, with a limit of time and memory.

Right is: exit code 2 (1 is crosscheck's and demo's own answer), every line on standard error begins with "crossdistil: error: ",
and no file is new or changed. Exit code 0 is wrong, but for the inputs that were drawn as such that may be fine; they are
counted apart, and those that were accepted by the reason why.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a child of a fork has no threads

from wrong_input_cases import FINE, Grammar
from wrong_input_world import GOOD, MAKE, Case, called, prepare, write_world

from crossdistil.core.app import cli
from crossdistil.core.errors import MESSAGE_PREFIX

SECONDS, MEMORY = 60, 4 << 30
TOLD_BY_INSPECT = ("file", "value in a file")
"""Kinds of which `inspect` says under "problems" what is wrong: that is its answer, with exit code 0."""
COUNTED = ("certainly wrong", "may be fine", "accepted", "kinds", "commands")


def make_folders(world: Path, folder: Path) -> None:
    """Add to the world what other commands read, made by the commands that write it."""
    for name, lines in MAKE.items():
        for words in lines:
            if (world / name).exists():
                (world / name).rename(world / "out")
            must_end_well(Case(" ".join(words[:2]), "good", "", words), world, folder)
            shutil.rmtree(world / "out", ignore_errors=True)
            shutil.copytree(folder / "case" / "out", world / name)


def must_end_well(case: Case, world: Path, folder: Path) -> None:
    """Run a case that is right."""
    ended = run_case(case, world, folder)
    if ended["code"] != 0:
        raise RuntimeError(f"the good command {case.command} ends with {ended}")


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """What is in a folder: size and time of change of each file."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        found[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def run_case(case: Case, world: Path, folder: Path) -> dict[str, Any]:
    """Run a case in a forked child; returns what was wrong with how it ended (`problem`, or None), and how."""
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    prepare(case, world, place)
    before, started = contents(place), time.monotonic()
    output, errors = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        _child(case, place, output, errors)
    code = _wait(child, started)
    told = output.read_text(encoding="utf-8", errors="replace")
    lines = errors.read_text(encoding="utf-8", errors="replace").splitlines()
    changed = sorted(name for name, stat in contents(place).items() if before.get(name) != stat)
    result = {"code": code, "seconds": round(time.monotonic() - started, 2), "stderr": lines[-6:]}
    return {**result, "problem": _problem(case, code, told, lines, changed)}


def _problem(case: Case, code: int | str, output: str, lines: list[str], changed: list[str]) -> str | None:
    if isinstance(code, str):
        return code
    if any(line.startswith("Traceback") for line in lines):
        return "a traceback"
    command = " ".join(called(case.command))
    if code == 0:
        told = command == "inspect" and case.kind in TOLD_BY_INSPECT and "problems" in output
        return None if case.fine or told else "exit code 0 for a wrong input"
    if code != 2 and not (code == 1 and command in ("crosscheck", "demo")):
        return f"exit code {code}"
    other = [line for line in lines if not line.startswith(MESSAGE_PREFIX)]
    if other:
        return f"a line that is no error: {other[0][:200]!r}"
    if not lines:
        return "no error is told"
    if any(ord(character) < 32 for line in lines for character in line):
        return "control characters"
    if any(len(line) > 4000 for line in lines) or len(lines) > 200:
        return "an endless message"
    return f"left behind: {', '.join(changed[:4])}" if changed else None


def _child(case: Case, place: Path, output: Path, errors: Path) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(place)
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
        for path, number in ((output, 1), (errors, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["crossdistil", *(word.replace("\x00", "") for word in case.arguments)]
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _wait(child: int, started: float) -> int | str:
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else f"signal {signal.Signals(-code).name}"
        if time.monotonic() - started > SECONDS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"over {SECONDS} seconds"
        time.sleep(0.002)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def load_everything() -> None:
    """Import what the commands import when they run, so that the children need not."""
    from crossdistil.backends.registry import load_engine
    from crossdistil.core.app import crosscheck, crosscheck_tables, demo, explain_view, inference, run  # noqa: F401
    from crossdistil.core.engine import EngineOptions

    load_engine("torch", EngineOptions("cpu"))


def drive(count: int, seed: int, only: Sequence[str] = (), part: int = 0, parts: int = 1) -> dict[str, Any]:
    """Run every `parts`-th of the cases, from number `part` on: counts, and the failures."""
    load_everything()
    gc.freeze()  # what is imported stays where it is, and children share it
    counts = {name: Counter() for name in COUNTED}
    failures = []
    with tempfile.TemporaryDirectory(prefix="crossdistil-wrong-") as name:
        folder = Path(name)
        os.environ["CROSSDISTIL_CACHE"] = str(folder / "cache")
        world = folder / "world"
        world.mkdir()
        write_world(world)
        make_folders(world, folder)
        for command, words in GOOD.items() if count >= 1000 or only else ():
            if "none" not in words and (not only or command in only):
                must_end_well(Case(command, "good", "", [*called(command), *words]), world, folder)
        for case in islice(Grammar(seed, world).cases(count, only), part, None, parts):
            ended = run_case(case, world, folder)
            counts["kinds"][case.kind] += 1
            counts["commands"][f"{case.command}: {ended['code']}"] += 1
            counts["may be fine" if case.fine else "certainly wrong"][f"exit code {ended['code']}"] += 1
            if ended["problem"] is not None:
                words = [word[:200] for word in case.arguments]
                failures.append({"arguments": words, "kind": case.kind, "what": case.what, **ended})
                print(json.dumps(failures[-1]), file=sys.stderr, flush=True)
            elif ended["code"] == 0:
                counts["accepted"][FINE[case.fine] if case.fine else "inspect tells of the problem, as its answer"] += 1
    return {"counts": counts, "failures": failures}


def drive_parts(options: argparse.Namespace) -> dict[str, Any]:
    """The same in as many processes as are asked for, and the counts of all."""
    settings = [(options.count, options.seed, options.only or (), part, options.jobs) for part in range(options.jobs)]
    if options.jobs == 1:
        found = [drive(*settings[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            found = pool.starmap(drive, settings)
    counts = {name: dict(sorted(sum((each["counts"][name] for each in found), Counter()).items())) for name in COUNTED}
    return {
        "cases": sum(counts["kinds"].values()),
        "seed": options.seed,
        **counts,
        "failures": [failure for each in found for failure in each["failures"]],
    }


def added(kept: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The results of two runs as one, of the later one's date."""
    sums = {name: dict(sorted((Counter(kept[name]) + Counter(found[name])).items())) for name in COUNTED}
    return {**found, **{key: kept[key] + found[key] for key in ("cases", "seconds", "failures")}, **sums}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(GOOD), help="one command; several times for several")
    parser.add_argument("--add", action="store_true", help="add the counts to those in --out, of a run of other commands")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/robustness_wrong_inputs.json for a whole run")
    options = parser.parse_args()
    started = time.monotonic()
    found = drive_parts(options)
    from crossdistil.core.processor import vendor

    found |= {"seconds": round(time.monotonic() - started), "processor": vendor(), "date": time.strftime("%Y-%m-%d")}
    if options.add:
        found = added(json.loads(options.out.read_text(encoding="utf-8")), found)
    out = options.out
    if out is None and options.only is None and options.count >= 2000:
        out = Path(__file__).resolve().parents[1] / "results" / "robustness_wrong_inputs.json"
    text = json.dumps(found, indent=2, ensure_ascii=True) + "\n"
    if out is not None:
        out.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()
