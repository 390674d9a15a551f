"""The table of what the drivers in this folder found, from their kept results. `benchmarks/pages.py` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import RESULTS


def _wrong_inputs(found: dict[str, Any]) -> tuple[str, str]:
    wrong, other = found["certainly wrong"], found["may be fine"]
    told = found["accepted"]["inspect tells of the problem, as its answer"]
    what = f"{found['cases']:,} wrong inputs on the command line, drawn from all commands, options and recipe keys"
    return what, (
        f"of {sum(wrong.values()):,} that are certainly wrong {wrong['exit code 2']:,} refused with exit code 2, {told} told by "
        f"`inspect` as its answer; of {sum(other.values()):,} others {other['exit code 0']:,} accepted; "
        f"{len(found['failures'])} failures"
    )


def _mutated_files(found: dict[str, Any]) -> tuple[str, str]:
    readers = found["readers"]
    refused = sum(reader["refused"] for reader in readers.values())
    what = f"{found['reads']:,} reads of damaged files by {len(readers)} readers"
    return what, f"{refused:,} refused, the others read; {found['failures']} tracebacks, signals, time-outs or excesses of memory"


def _damaged_folders(found: dict[str, Any]) -> tuple[str, str]:
    what = f"{found['damages']} kinds of damage to run folders and caches"
    silent = len(found["right result without a word"])
    return what, (
        f"{found['refused']} refused, {found['told']} told and gone on, {silent} made again without a word, with the right "
        f"result; {len(found['wrong'])} ended otherwise"
    )


def _kills(found: dict[str, Any]) -> tuple[str, str]:
    commands = found["commands"].values()
    kills, right = (sum(command[key] for command in commands) for key in ("kills", "went on to the same bytes"))
    left = sum(command["left behind"] for command in commands)
    operations = sum(command["operations"] for command in commands)
    backend, sunk = found.get("backend", "torch"), ", with up to four steps in one call" * (found.get("backend") == "mindspore")
    points = "file operations" if backend == "torch" else "file operations and steps"
    names = ", ".join(f"`{name}`" for name in found["commands"])
    what = f"{backend}{sunk}: kills at {kills} of the {operations:,} {points} of {names}"
    verdict = " (`crosscheck`: the same verdict)" if "crosscheck" in found["commands"] else ""
    return what, f"{right} went on to the same bytes{verdict}, {left} left something behind"


def _killed_ranks(found: dict[str, Any]) -> tuple[str, str]:
    kills = found["kills"]
    early = [kill["ended_within_seconds"] for kill in kills if kill["exit_code"] == 1]
    phases = ", ".join(f"{count} while {name}" for name, count in found["phases"].items() if name != "ended")
    kinds = ", ".join(f"`{kind}`" for kind in dict.fromkeys(kill["kind"] for kill in kills if "kind" in kill))
    run = f"runs of {kinds}" if kinds else "a run"
    what = f"{found['backend']}: one of {found['processes']} processes of {run} killed, {len(early)} times ({phases})"
    return what, f"all ended within {max(early):.1f} s with one line that names it; all went on to the same weights"


def _full_disks(found: dict[str, Any]) -> tuple[str, str]:
    runs = [each for kind in found["kinds"].values() for each in kind["full"]]
    full = [each for each in runs if each["exit_code"] == 2]
    shares = ", ".join(f"{100 * share:.0f}" for share in sorted({each["share"] for each in runs}))
    names = ", ".join(f"`run of {name}`" for name in found["kinds"])
    return f"{found['backend']}: {names} on a disk with room for {shares} % of what it needs, and on one that is read-only", (
        f"{len(full)} of {len(runs)} ended with one line and exit code 2, and went on to the same bytes once there was room; "
        f"{len(found['kinds'])} refused by one line before the first step, exit code 2"
    )


def _hostile_requests(found: dict[str, Any]) -> tuple[str, str]:
    statuses = found["statuses"]
    refused = sum(count for status, count in statuses.items() if status.startswith(("4", "5")))
    return f"{found['kinds']} kinds of wrong and hostile requests to a service, on raw sockets", (
        f"{refused} answered with the status that says why, {statuses['closed']} closed, {statuses['200']} right after all; "
        f"memory grew by {found['memory_grown_mib']:.0f} MiB; {len(found['failures'])} failures"
    )


DRIVERS = {
    "wrong_inputs": _wrong_inputs,
    "mutated_files": _mutated_files,
    "damaged_folders": _damaged_folders,
    "kills": _kills,
    **{f"kills_kinds{backend}": _kills for backend in ("", "_oneflow", "_mindspore")},
    **{f"killed_ranks_{backend}": _killed_ranks for backend in ("torch", "oneflow", "mindspore")},
    **{f"killed_ranks_kinds_{backend}": _killed_ranks for backend in ("oneflow", "mindspore")},
    **{f"full_disks_{backend}": _full_disks for backend in ("torch", "oneflow", "mindspore")},
    "hostile_requests": _hostile_requests,
}


def table(folder: Path = RESULTS) -> str:
    """The rows of the results that are kept."""
    lines = ["| driver | what was tried | what came out | date |", "| --- | --- | --- | ---: |"]
    for name, row in DRIVERS.items():
        path = folder / f"robustness_{name}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            driver = {_killed_ranks: "killed_ranks", _kills: "kills", _full_disks: "full_disks"}.get(row, name)
            lines.append(f"| `benchmarks/robustness/{driver}.py` | {' | '.join(row(found))} | {found['date']} |")
    return "\n".join([*lines, "", "On two cores of an AMD EPYC, which did other work too; torch on the CPU."])
