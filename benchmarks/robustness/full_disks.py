"""Runs of every kind of task on a small disk that gets full, and on one that cannot be written to: one line says so, exit code 2,
and once there is room `--resume` ends with the bytes of a run that always had it.

    python benchmarks/robustness/full_disks.py [--backend torch] [--shares 0.3,0.6,0.9] [KIND ...]

It mounts a tmpfs, so it wants root. The shares are of what a whole run and its cache need. This Python must have the backend. The
result is `benchmarks/results/robustness_full_disks_BACKEND.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # forks of a process with threads hang
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kills import RESULTS, run_content, same
from tables import machine, write_json

from crossdistil.core.errors import MESSAGE_PREFIX
from crossdistil.tests.kill_points import command, forked
from crossdistil.tests.kind_recipes import KIND_RECIPES, write_kind

_WHOLE_KIB = 64 << 10


@contextlib.contextmanager
def disk(place: Path) -> Iterator[Callable[[str], None]]:
    """A tmpfs there; what is yielded mounts it again with other options, such as `size=100k` or `ro`."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_WHOLE_KIB}k", "tmpfs", place], check=True)
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
    finally:
        subprocess.run(["umount", place], check=True)


def used_kib(place: Path) -> int:
    """What is used of a mounted disk."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize >> 10


def told(log: Path) -> list[str]:
    """The errors that a command has said; raises AssertionError for a traceback."""
    text = log.read_text(errors="replace")
    assert "Traceback" not in text, text
    return [line.removeprefix(MESSAGE_PREFIX) for line in text.splitlines() if line.startswith(MESSAGE_PREFIX)]


def of_kind(root: Path, kind: str, backend: str, shares: list[float]) -> dict:
    """The whole run, one on a disk of each share of it, and one that cannot write at all."""
    recipe, log = write_kind(root / "files", kind, steps=6, evaluate_every=3, save_every=3), root / "log"
    arguments = ["run", recipe, "--backend", backend, "--device", "cpu", "--no-latency"]

    def run(place: Path, *more: object) -> int:
        os.environ["CROSSDISTIL_CACHE"] = str(place / "cache")
        return forked(command(*arguments, "--out", place / "run", *more), log)

    place = root / "disk"
    with disk(place) as again:
        assert run(place) == 0, log.read_text()
        expected, whole = run_content(place / "run"), used_kib(place)
        again("ro")
        os.environ["CROSSDISTIL_CACHE"] = str(root / "cache")
        assert forked(command(*arguments, "--out", place / "other"), log) == 2, log.read_text()
        read_only = [line.replace(str(root), "") for line in told(log)]
    assert len(read_only) == 1, read_only
    found = {"whole_kib": whole, "read_only": read_only[0], "full": []}
    for share in shares:
        place = root / f"disk-{share}"
        with disk(place) as again:
            again(f"size={int(whole * share)}k")
            code = run(place)
            lines = told(log)
            state = any((place / "run").glob("state/*"))
            if code:
                assert code == 2 and len(lines) == 1, f"{kind} {share}: ended with {code}: {log.read_text()}"
                again(f"size={_WHOLE_KIB}k")
                resumed = (place / "run" / "run.json").exists()
                assert run(place, *["--resume"] * resumed) == 0, f"{kind} {share}: {log.read_text()}"
            same(run_content(place / "run"), expected)
            left = [str(path) for path in place.rglob("*") if "tmp" in path.name]
            assert not left, f"{kind} {share}: left behind: {left}"
            line = lines[0].replace(str(root), "") if code else None
            found["full"].append({"share": share, "exit_code": code, "line": line, "a state was saved": state})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KIND_RECIPES)}; default: all")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--shares", default="0.3,0.6,0.9")
    options = parser.parse_args()
    path = RESULTS / f"robustness_full_disks_{options.backend}.json"
    for kind in options.kinds or KIND_RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            found = of_kind(Path(os.path.realpath(folder)), kind, options.backend, [float(x) for x in options.shares.split(",")])
        print(kind, json.dumps(found, indent=1), flush=True)
        kept = json.loads(path.read_text())["kinds"] if path.exists() else {}
        about = {"backend": options.backend, "machine": machine(), "date": datetime.date.today().isoformat()}
        write_json(path, {**about, "kinds": {**kept, kind: found}})


if __name__ == "__main__":
    main()
