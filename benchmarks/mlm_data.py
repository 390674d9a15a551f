"""Time and memory of `crossdistil data mlm` and of the token store, beside a plain create_pretraining_data.py.

    python benchmarks/mlm_data.py --text enwiki.txt uncased.txt pieces --text news.txt chinese.txt chinese --work runs/mlm-data

A text is given with its vocabulary and what is masked as a whole, and is brought into Google's format first, so that all sides
read the same documents. The sides take turns, each in processes from start to end, with the same passes over the same text:
  crossdistil   `crossdistil data mlm`: blocks of text over processes
  google        `crossdistil data mlm --algorithm google`: one process, the records of Google's script (not of Chinese words)
  store         the token store, from which masks are drawn while a student learns: it takes the place of records
  plain         `google_pretraining.py`: one process, plain Python, as Google's script is
Before anything is measured, the plain side must give record for record what `--algorithm google` gives for the beginning of each
text. Memory is the largest sum of what all processes of a side have to themselves (resident, less what they share), for the text
once and several times over; the two sides that have all text in memory do without the second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tables import NEW_RESULTS, machine, markdown, summary, write_json

from crossdistil.core.data.mlm.documents import Corpus
from crossdistil.core.data.records.tfrecord import parse_example, read_records

STREAMED, IN_MEMORY = ("crossdistil", "store"), ("google", "plain")
_PAUSE = 0.2  # seconds between two looks at the memory, which take time themselves
_CHECKED = 200_000  # bytes of a text
_STORE = """
import sys
from pathlib import Path
from crossdistil.core.data.token_store import token_store
from crossdistil.core.data.tokenize import load_vocabulary_file
token_store(Path(sys.argv[1]), load_vocabulary_file(Path(sys.argv[2])), cache_folder=Path(sys.argv[3]))
"""


def command(side: str, text: Path, vocabulary: Path, words: str, out: Path, settings: dict[str, Any]) -> list[str]:
    """The process of a side, which writes into the folder `out`."""
    passes = str(settings["passes"])
    if side == "store":
        return [sys.executable, "-c", _STORE, str(text), str(vocabulary), str(out)]
    if side == "plain":
        script = str(Path(__file__).with_name("google_pretraining.py"))
        files = ["--input", str(text), "--vocabulary", str(vocabulary), "--output", str(out / "plain.tfrecord")]
        return [sys.executable, script, *files, "--whole-words", words, "--dupe-factor", passes]
    own = ["--processes", str(settings["processes"])] if side == "crossdistil" else ["--algorithm", "google"]
    options = ["--data", text, "--vocabulary", vocabulary, "--out", out, "--whole-words", words, "--format", "sentences", *own]
    return [sys.executable, "-m", "crossdistil", "data", "mlm", *map(str, options), "--dupe-factor", passes]


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
    """Seconds and peak in MiB of one run."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (out.parent / "messages").open("w+", encoding="utf-8") as messages:
        start, peak = time.perf_counter(), 0.0
        with subprocess.Popen(arguments, stdout=messages, stderr=messages, env=environment) as process:
            while process.poll() is None:
                peak = max(peak, own_memory(process.pid))
                time.sleep(_PAUSE)
            seconds = time.perf_counter() - start
        if process.returncode:
            messages.seek(0)
            sys.exit(f"{' '.join(arguments)}\n{messages.read()[-1500:]}")
    return {"seconds": round(seconds, 3), "peak_mb": round(peak, 1)}


def examples_in(out: Path) -> int | None:
    """How many records a side has written; None for the store."""
    note = out / "mlm.json"
    if note.is_file():
        return json.loads(note.read_text(encoding="utf-8"))["counts"]["examples"]
    return sum(1 for path in out.glob("*.tfrecord") for _ in read_records(path)) or None


def prepare(source: Path, size: int | None, path: Path) -> None:
    """Write the first `size` bytes of a text as Google's script reads it: a sentence a line, blank lines between documents."""
    content = source.read_bytes()[:size]
    path.write_bytes(content[: content.rfind(b"\n") + 1])
    sentences = list(Corpus([path]).sentences())
    path.write_text("".join(f"{sentence or ''}\n" for sentence in sentences), encoding="utf-8")


def repeated(text: Path, times: int, path: Path) -> Path:
    """The text several times over."""
    with path.open("wb") as file:
        for _ in range(times):
            with text.open("rb") as source:
                shutil.copyfileobj(source, file)
    return path


def records(path: Path) -> Iterator[dict[str, list]]:
    """The features of each record."""
    for _, data in read_records(path):
        yield {name: values.tolist() for name, values in parse_example(data).items()}


def check(text: Path, vocabulary: Path, words: str, work: Path) -> int:
    """How many records the plain side has in common with `--algorithm google`: all of them, or the program ends."""
    words = "none" if words == "chinese" else words
    start = work / "start"
    prepare(text, _CHECKED, start)
    found = []
    for side in IN_MEMORY:
        out = work / "out"
        measured(command(side, start, vocabulary, words, out, {"passes": 2}), out)
        found.append(list(records(next(out.glob("*.tfrecord")))))
    if found[0] != found[1]:
        sys.exit(f"{text}: the plain side does not give the records of --algorithm google")
    return len(found[0])


def table(result: dict[str, Any]) -> str:
    """Two rows a text: once, and several times over."""
    rows, settings = [], result["settings"]
    for measurement in result["measurements"]:
        sides = measurement["sides"]
        times = "" if measurement["times"] == 1 else f" x {measurement['times']}"
        row = [measurement["text"] + times, measurement["whole_words"], f"{measurement['size_mb']:.0f}"]
        for side in (*STREAMED, *IN_MEMORY):
            found = sides.get(side)
            row.append(f"{summary(found['seconds'])['median']:.1f} s, {max(found['peak_mb']):.0f} MiB" if found else "")
        for side in STREAMED:
            ratio = ""
            if "plain" in sides:
                ratios = summary([b / a for a, b in zip(sides[side]["seconds"], sides["plain"]["seconds"])])
                ratio = f"{ratios['median']:.1f} ({ratios['min']:.1f} to {ratios['max']:.1f})"
            row.append(ratio)
        work = sides["crossdistil"]["examples"] / sides["plain"]["examples"] if "plain" in sides else None
        rows.append([*row, f"{work:.1f}" if work else ""])
    headings = ["text", "whole words", "MB", "`data mlm`", "token store", "`--algorithm google`", "plain Python"]
    headings += ["`data mlm`, times faster", "token store, times faster", "examples, to those of plain"]
    checked = sum(measurement["checked"] for measurement in result["measurements"] if measurement["times"] == 1)
    note = (
        f"{settings['passes']} passes, {settings['processes']} processes beside one; medians (smallest to largest) of "
        f"{settings['rounds']} turns, processes from start to end, {result['machine']['cpu']}. Memory: the most that all "
        "processes of a side have to themselves. The plain side is `benchmarks/google_pretraining.py`, whose records are those "
        f"of `--algorithm google` (checked on {checked:,}). It makes fewer examples of a text: where a sentence is long, most of "
        "it is cut off."
    )
    return f"{markdown(headings, rows)}\n\n{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs=3, action="append", required=True, metavar=("FILE", "VOCABULARY", "WHOLE_WORDS"))
    parser.add_argument("--work", type=Path, required=True, help="a folder for texts and records, removed at the end")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=10, help="how often the text is repeated for the second row of its memory")
    parser.add_argument("--megabytes", type=float, help="only the beginning of each text")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "mlm_data.json")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("rounds", "processes", "passes", "megabytes")}
    about = {"benchmark": "mlm_data", "date": time.strftime("%Y-%m-%d"), "machine": machine()}
    result: dict[str, Any] = {**about, "settings": settings, "measurements": []}
    options.work.mkdir(parents=True, exist_ok=True)
    out = options.work / "out"
    for name, place, words in options.text:
        source, vocabulary, once = Path(name), Path(place), options.work / Path(name).name
        checked = check(source, vocabulary, words, options.work)
        prepare(source, None if options.megabytes is None else int(options.megabytes * 1e6), once)
        for times in dict.fromkeys((1, options.repeat)):
            text = once if times == 1 else repeated(once, times, options.work / f"{times}-{once.name}")
            names = (*STREAMED, *IN_MEMORY) if times == 1 else STREAMED
            names = [side for side in names if side != "google" or words != "chinese"]
            sides: dict[str, Any] = {side: {"seconds": [], "peak_mb": []} for side in names}
            for _ in range(options.rounds if times == 1 else 1):
                for side, found in sides.items():
                    figures = measured(command(side, text, vocabulary, words, out, settings), out)
                    found["seconds"].append(figures["seconds"])
                    found["peak_mb"].append(figures["peak_mb"])
                    found["examples"] = examples_in(out)
            shutil.rmtree(out)
            size = round(text.stat().st_size / 1e6, 1)
            measurement = {"text": source.name, "whole_words": words, "times": times, "size_mb": size, "checked": checked}
            result["measurements"].append({**measurement, "sides": sides})
            write_json(options.out, result)
            print(f"{text.name}: {sides}", flush=True)
    shutil.rmtree(options.work)
    print(table(result))


if __name__ == "__main__":
    main()
