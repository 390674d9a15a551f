"""Writes the README's tables from results, or checks that they are what the results give.

    python benchmarks/results_table.py runs/sst2 README.md
    python benchmarks/results_table.py --collect runs/sst2 benchmarks/results/sst2 README.md
    python benchmarks/results_table.py benchmarks/results/huggingface_loop.json benchmarks/results/backends_step_time.json \\
        README.md --name speed
    python benchmarks/results_table.py benchmarks/results/sst2 README.md --check

The first is straight from run folders, the second keeps their result.json and uses those. A source is a folder of run
folders, a folder of kept results, or the JSON file of a speed benchmark or a cross-check. The tables go between
`<!-- results:begin NAME -->` and `<!-- results:end NAME -->`; NAME is the name of the first source unless given. With
`--check` nothing is written, and the exit code is 1 if the README differs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import backends_step_time
import huggingface_loop
from backend_tables import crosscheck_table, same_run_table
from tables import markdown, replace_section

SPEED_TABLES = {"huggingface_loop": huggingface_loop.table, "backends_step_time": backends_step_time.table}
METHODS = {"finetune": "fine-tuned (labels only)", "kd": "distilled (`kd`)"}
BYTES_PER_PARAMETER = 4  # model.safetensors is float32


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> result.json of the complete runs in a folder, which may itself be a run; or of the results kept in it."""
    if (folder / "result.json").is_file():
        paths = {folder.name: folder / "result.json"}
    else:
        paths = {path.parent.name: path for path in folder.glob("*/result.json")}
        paths |= {path.stem: path for path in folder.glob("*.json")}
    if not paths:
        sys.exit(f"{folder}: holds no complete run (a folder with result.json) and no kept result")
    return {name: json.loads(paths[name].read_text(encoding="utf-8")) for name in sorted(paths)}


def collect(runs: Sequence[Path], folder: Path) -> None:
    """Keep the result.json of complete runs under the names of their folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in runs:
        found = {place.name: place} if (place / "result.json").is_file() else {
            path.parent.name: path.parent for path in place.glob("*/result.json")
        }  # fmt: skip
        if not found:
            sys.exit(f"{place}: holds no complete run (a folder with result.json)")
        for name, run in sorted(found.items()):
            shutil.copyfile(run / "result.json", folder / f"{name}.json")
            print(f"kept {folder / name}.json")


def runs_table(results: Sequence[dict[str, Any]], with_speed: bool) -> str:
    """One row per method: mean and sample standard deviation over the seeds. The teacher's row comes first."""
    teachers = {json.dumps(result["teacher"], sort_keys=True) for result in results if "teacher" in result}
    if len(teachers) > 1:
        sys.exit(f"the runs have {len(teachers)} different teachers; a table compares students of one")
    teacher = json.loads(teachers.pop()) if teachers else None
    groups: dict[tuple, list[dict]] = {}
    for result in results:
        own = result["student"]
        is_teacher = teacher is not None and "teacher" not in result and own["parameters"] == teacher["parameters"]
        groups.setdefault((not is_teacher, result["method"], own["parameters"]), []).append(result)
    metrics = list(results[0]["student"]["metrics"])
    rows = []
    if teacher is not None:
        training = [result for (is_student, *_), found in groups.items() if not is_student for result in found]
        scores = [f"{100 * teacher['metrics'][name]:.1f}" for name in metrics]
        rows.append(["teacher", *_size(teacher["parameters"]), *scores, "", _speed(training)])
    for (is_student, method, parameters), found in sorted(groups.items()):
        if is_student:
            scores = [_spread([100 * result["student"]["metrics"][name] for result in found]) for name in metrics]
            rows.append([METHODS.get(method, method), *_size(parameters), *scores, str(len(found)), _speed(found)])
    names = [f"{name.replace('_', ' ')}, %" for name in metrics]
    headings = ["model", "parameters", "size, MB", *names, "seeds", "training tokens/s"]
    if not with_speed:
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    table = markdown(headings, rows)
    return f"{table}\n\n{_conditions(results)}"


def _size(parameters: int) -> list[str]:
    return [f"{parameters / 1e6:.1f}M", f"{parameters * BYTES_PER_PARAMETER / 1e6:.0f}"]


def _spread(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def _speed(results: Sequence[dict]) -> str:
    return f"{statistics.mean(result['tokens_per_second'] for result in results):,.0f}" if results else ""


def _conditions(results: Sequence[dict]) -> str:
    """What the runs have in common, in a sentence."""
    where = sorted({
        f"{result['backend']} {result['versions'][result['backend']]} on {result['device']} in {result['precision']}"
        for result in results
    })  # fmt: skip
    epochs = sorted({f"{result['epochs']:g}" for result in results})
    seeds = sorted({result["seed"] for result in results})
    return (
        f"Scores are those on dev, mean ± sample standard deviation over the seeds ({', '.join(map(str, seeds))}); "
        f"{' and '.join(epochs)} epochs with {' and '.join(where)}."
    )


def file_table(path: Path) -> str:
    """The table of a cross-check, or of a speed benchmark with what it was measured on."""
    result = json.loads(path.read_text(encoding="utf-8"))
    if "verdict" in result:
        return crosscheck_table(result)
    if result.get("benchmark") not in SPEED_TABLES:
        sys.exit(f"{path}: is no result of {' or '.join(SPEED_TABLES)}")
    machine, settings = result["machine"], result["settings"]
    threads = "all threads" if machine["threads"] is None else f"threads: {machine['threads']}"
    device = f"{machine['cpu']}, {threads}" if settings["device"] == "cpu" else settings["device"]
    device += ", processor time" if settings["clock"] == "cpu" else ""
    shape = f"batches of {settings['batch_size']}"
    shape += f" x {settings['length']} tokens" if "length" in settings else ""
    turns = f"medians (smallest to largest) of {settings['rounds']} turns of {settings['steps']} steps, {shape}; {device}"
    return f"{SPEED_TABLES[result['benchmark']](result)}\n\n{turns[0].upper()}{turns[1:]}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="folders of runs or of kept results, or JSON files")
    parser.add_argument("readme", type=Path)
    parser.add_argument("--collect", type=Path, action="append", default=[], help="runs to keep in the first source")
    parser.add_argument("--name", help="section of the README")
    parser.add_argument("--no-speed", action="store_true", help="leave out the runs' tokens/s: the machine was shared")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the README differs")
    options = parser.parse_args()
    if options.collect:
        collect(options.collect, options.sources[0])
    if all(source.is_file() for source in options.sources):
        body = "\n\n".join(file_table(source) for source in options.sources)
    else:
        results = [result for source in options.sources for result in read_results(source).values()]
        several = len({result["backend"] for result in results}) > 1
        body = same_run_table(results) if several else runs_table(results, not options.no_speed)
    text = options.readme.read_text(encoding="utf-8")
    name = options.name or options.sources[0].stem
    try:
        changed = replace_section(text, name, body)
    except ValueError as error:
        sys.exit(f"{options.readme}: {error}")
    sources = ", ".join(map(str, options.sources))
    if options.check and changed != text:
        sys.exit(f"{options.readme}: the section '{name}' is not what the results give: {sources}")
    if not options.check:
        options.readme.write_text(changed, encoding="utf-8")
        print(body)


if __name__ == "__main__":
    main()
