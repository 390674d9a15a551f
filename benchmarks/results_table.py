"""Writes a table of a page from results, or checks that it is what the results give. `pages.py` does it for all tables of the
README and of docs/ from the results that are kept.

    python benchmarks/results_table.py --runs runs/sst2 benchmarks/results/sst2 PAGE.md
    python benchmarks/results_table.py benchmarks/results/huggingface_loop.json benchmarks/results/backends_step_time.json \\
        PAGE.md --name speed
    python benchmarks/results_table.py benchmarks/results/sst2 PAGE.md --check

A source is the JSON file of `crossdistil compare --json`, of a speed benchmark or of a cross-check, or a folder of kept results;
a folder of run folders will do too. `--runs` first keeps the result.json of complete runs in the source. Runs named METHOD-SEED
make the table of methods, a row each, as `crossdistil compare` groups them, with the latencies of `crossdistil latency --data
DATA --out FILE RUN...` if they are of the same task; runs of one recipe on several backends make a row for each backend; a
folder of `crosscheck.json` files makes a row for each recipe, or, where they have several numbers of processes, for each recipe
and backend. The tables go between `<!-- results:begin NAME -->` and `<!-- results:end NAME -->`; NAME is the name of the first
source unless given. With
`--check` nothing is written, and the exit code is 1 if the page differs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import backends_step_time
import bert_base_shapes
import conversion_matrix
import conversion_referees
import conversion_speed
import exports
import from_text
import labelled_files
import mlm_data
import oneflow_kernels
import real_models
import rival_tables
import scaling
import sentence_embeddings
import service_load
import starting
import step_profile
import textbrewer_job
import vocabulary_memory
from backend_tables import crosscheck_table, crosschecks_table, processes_table, same_run_table
from methods_table import compared, methods_table, read_latency
from tables import RESULTS, replace_section

# Benchmark -> its table with all that is to be said of it.
WHOLE_TABLES = {
    "textbrewer_job": textbrewer_job.table,
    "bert_base_shapes": bert_base_shapes.table,
    "conversion_matrix": conversion_matrix.table,
    "conversion_referees": conversion_referees.table,
    "conversion_speed": conversion_speed.table,
    "real_models": real_models.table,
    "exports": exports.table,
    "labelled_files": labelled_files.table,
    "mlm_data": mlm_data.table,
    "scaling": scaling.table,
    "sentence_embeddings": sentence_embeddings.table,
    "service_load": service_load.table,
    "starting": starting.table,
    "step_profile": step_profile.table,
    "oneflow_kernels": oneflow_kernels.table,
    "from_text": from_text.table,
    "vocabulary_memory": vocabulary_memory.table,
}
SPEED_TABLES = {"huggingface_loop": rival_tables.table, "backends_step_time": backends_step_time.table}


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


def backends_of(result: dict[str, Any]) -> list[str]:
    """The backend of each run of a cross-check."""
    return [run["backend"] for run in result["backends"].values()]


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


def file_table(path: Path, latency: Path) -> str:
    """The table of a comparison, of a cross-check, or of a speed benchmark with what it was measured on."""
    result = json.loads(path.read_text(encoding="utf-8"))
    if "groups" in result:
        return methods_table(result, read_latency(latency))
    if "verdict" in result:
        return crosscheck_table(result)
    if result.get("benchmark") in WHOLE_TABLES:
        return WHOLE_TABLES[result["benchmark"]](result)
    if result.get("benchmark") not in SPEED_TABLES:
        sys.exit(f"{path}: is no result of {', '.join([*SPEED_TABLES, *WHOLE_TABLES])}")
    machine, settings = result["machine"], result["settings"]
    threads = "all threads" if machine["threads"] is None else f"threads: {machine['threads']}"
    device = f"{machine['cpu']}, {threads}" if settings["device"] == "cpu" else settings["device"]
    device += ", processor time" if settings["clock"] == "cpu" else ""
    shape = f"batches of {settings['batch_size']}"
    shape += f" x {settings['length']} tokens" if "length" in settings else ""
    turns = f"medians (smallest to largest) of {settings['rounds']} turns of {settings['steps']} steps, {shape}; {device}"
    return f"{SPEED_TABLES[result['benchmark']](result)}\n\n{turns[0].upper()}{turns[1:]}."


def body_of(sources: Sequence[Path], latency: Path) -> str:
    """The table, or tables one below the other, that the results in `sources` give."""
    if all(source.is_file() for source in sources):
        return "\n\n".join(file_table(source, latency) for source in sources)
    results = {name: result for source in sources for name, result in read_results(source).items()}
    several = [
        len(result["backends"]) > len(set(backends_of(result))) for result in results.values() if "process_tolerances" in result
    ]
    if len(several) == len(results) and all(several):
        return processes_table(list(results.values()))
    if all("verdict" in result for result in results.values()):
        return crosschecks_table(list(results.values()))
    if len({result["backend"] for result in results.values()}) > 1:
        return same_run_table(list(results.values()))
    return methods_table(compared(results), read_latency(latency))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="folders of runs or of kept results, or JSON files")
    parser.add_argument("page", type=Path)
    parser.add_argument("--runs", type=Path, action="append", default=[], help="runs to keep in the first source before")
    parser.add_argument(
        "--latency", type=Path, default=RESULTS / "latency.json", help="what `crossdistil latency --data --out` wrote"
    )
    parser.add_argument("--name", help="section of the page")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page differs")
    options = parser.parse_args()
    if options.runs and options.check:
        parser.error("--runs keeps results, --check changes nothing: give one of them")
    if options.runs:
        collect(options.runs, options.sources[0])
    body = body_of(options.sources, options.latency)
    text = options.page.read_text(encoding="utf-8")
    name = options.name or options.sources[0].stem
    try:
        changed = replace_section(text, name, body)
    except ValueError as error:
        sys.exit(f"{options.page}: {error}")
    sources = ", ".join(map(str, options.sources))
    if options.check and changed != text:
        sys.exit(f"{options.page}: the section '{name}' is not what the results give: {sources}")
    if not options.check:
        options.page.write_text(changed, encoding="utf-8")
        print(body)


if __name__ == "__main__":
    main()
