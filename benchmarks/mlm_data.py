"""Time and memory of `crossdistil data mlm`, beside one process that does as Google's create_pretraining_data.py does.

    python benchmarks/mlm_data.py --text enwiki.txt uncased.txt pieces --text news.txt chinese.txt chinese --work runs/mlm-data

A text is given with its vocabulary and what is masked as a whole. Both sides take turns, each a process from start to end, with
the same passes over the same text. The plain side is `--algorithm google`, which tokenizes, cuts, masks and shuffles in Python,
an example and a piece at a time, with all text in memory (each word's pieces are found once, and records are encoded many at
a time, so that it is no slow one); it has no Chinese words, and masks characters instead. Memory is the largest sum of what all
processes of a side have to themselves (resident, less what they share), for the text once and several times over.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tables import RESULTS, machine, markdown, summary, write_json

SIDES = ("crossdistil", "plain")
_PAUSE = 0.05  # seconds between two looks at the memory


def command(side: str, text: Path, vocabulary: Path, words: str, out: Path, settings: dict[str, Any]) -> list[str]:
    """The process of a side."""
    own = ["--processes", str(settings["processes"])] if side == "crossdistil" else ["--algorithm", "google"]
    whole = "pieces" if side == "plain" and words == "chinese" else words
    options = ["--data", text, "--vocabulary", vocabulary, "--out", out, "--whole-words", whole, *own]
    options += ["--format", settings["format"]] if settings["format"] else []
    return [sys.executable, "-m", "crossdistil", "data", "mlm", *map(str, options), "--dupe-factor", str(settings["passes"])]


def own_memory(process: int) -> float:
    """MiB that a process and all below it have to themselves."""
    total, waiting = 0.0, [process]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        try:
            total += sum(
                int(line.split()[1]) / 1024
                for line in (folder / "smaps_rollup").read_text().splitlines()
                if line.startswith(("Private_Clean", "Private_Dirty"))
            )
            waiting += [int(each) for task in (folder / "task").iterdir() for each in (task / "children").read_text().split()]
        except OSError:  # it has ended
            continue
    return total


def measured(arguments: list[str], out: Path) -> dict[str, float]:
    """Seconds, peak in MiB and examples of one run."""
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while process.poll() is None:
            peak = max(peak, own_memory(process.pid))
            time.sleep(_PAUSE)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(process.stderr.read()[-1500:])
    examples = json.loads((out / "mlm.json").read_text(encoding="utf-8"))["counts"]["examples"]
    shutil.rmtree(out)
    return {"seconds": round(seconds, 3), "peak_mb": round(peak, 1), "examples": examples}


def repeated(text: Path, times: int, path: Path) -> Path:
    """The text, which ends with a line, several times over (a blank line more might change its format)."""
    with path.open("wb") as file:
        for _ in range(times):
            with text.open("rb") as source:
                shutil.copyfileobj(source, file)
    return path


def table(result: dict[str, Any]) -> str:
    """Two rows a text: once, and several times over."""
    rows = []
    settings = result["settings"]
    for measurement in result["measurements"]:
        us, them = (measurement["sides"].get(side) for side in SIDES)
        row = [f"{measurement['text']} {'' if measurement['times'] == 1 else 'x ' + str(measurement['times'])}".strip()]
        row += [measurement["whole_words"], f"{measurement['size_mb']:.0f}"]
        for side in (us, them):
            row += [f"{summary(side['seconds'])['median']:.1f}" if side else "", f"{max(side['peak_mb']):.0f}" if side else ""]
        ratio = ["", ""]
        if them:
            times = summary([b / a for a, b in zip(us["seconds"], them["seconds"])])
            work = us["examples"] / them["examples"]
            ratio = [f"{one['median']:.1f} ({one['min']:.1f} to {one['max']:.1f})" for one in (
                times, {name: value * work for name, value in times.items()}
            )]  # fmt: skip
        rows.append(row + ratio)
    headings = ["text", "whole words", "MB", "crossdistil, s", "MiB", "plain, s", "MiB", "times faster", "for each example"]
    note = (
        f"{settings['passes']} passes, {settings['processes']} processes beside one; medians (smallest to largest) of "
        f"{settings['rounds']} turns, processes from start to end, {result['machine']['cpu']}. The plain side makes fewer "
        "examples of a text: where a sentence is long, most of it is cut off."
    )
    return f"{markdown(headings, rows)}\n\n{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs=3, action="append", required=True, metavar=("FILE", "VOCABULARY", "WHOLE_WORDS"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--times", type=int, default=10, help="how often the text is repeated for the second row of its memory")
    parser.add_argument("--megabytes", type=float, help="only the beginning of each text")
    parser.add_argument("--format", help="of the texts, where it is not to be told by their content")
    parser.add_argument("--out", type=Path, default=RESULTS / "mlm_data.json")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("rounds", "processes", "passes", "format")}
    result: dict[str, Any] = {"benchmark": "mlm_data", "machine": machine(), "settings": settings, "measurements": []}
    options.work.mkdir(parents=True, exist_ok=True)
    for name, vocabulary, words in options.text:
        content = Path(name).read_bytes()[: None if options.megabytes is None else int(options.megabytes * 1e6)]
        once = options.work / Path(name).name
        once.write_bytes(content[: content.rfind(b"\n") + 1])
        for times in (1, options.times):
            text = once if times == 1 else repeated(once, times, options.work / f"{times}-{once.name}")
            # The plain side has all in memory: several times over it takes more than some machines have.
            sides: dict[str, Any] = {side: {"seconds": [], "peak_mb": []} for side in (SIDES if times == 1 else SIDES[:1])}
            for _ in range(options.rounds if times == 1 else 1):
                for side, found in sides.items():
                    out = options.work / "out"
                    figures = measured(command(side, text, Path(vocabulary), words, out, settings), out)
                    found["seconds"].append(figures["seconds"])
                    found["peak_mb"].append(figures["peak_mb"])
                    found["examples"] = figures["examples"]
            size = text.stat().st_size / 1e6
            result["measurements"].append(
                {"text": once.name, "whole_words": words, "times": times, "size_mb": round(size, 1), "sides": sides}
            )
            write_json(options.out, result)
            print(f"{text.name}: {sides}", flush=True)
    shutil.rmtree(options.work)
    print(table(result))


if __name__ == "__main__":
    main()
