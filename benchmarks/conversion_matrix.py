"""Every direction of conversion for every model, each proved by the frameworks' own forward passes.

    python benchmarks/conversion_matrix.py --encoder models/encoder --work runs/conversions

For each model: the canonical folder is written in the three other frameworks' formats, and then each of the four is
converted into each of the three others with `crossdistil convert --verify`. The table has the largest difference of any
output, relative to the largest value of that output, from NumPy float64, of any side that computed it. A conversion that was
measured before is not repeated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from conversion_models import MODELS, copy_model, make_model
from tables import NEW_RESULTS, machine, markdown, write_json

FRAMEWORKS = ("pytorch", "tf", "mindspore", "oneflow")
ENCODER = "MiniLM encoder, real weights"
_TITLES = {"pytorch": "PyTorch", "tf": "TF", "mindspore": "MindSpore", "oneflow": "OneFlow"}


def convert(source: Path, destination: Path, to: str, verify: bool) -> dict[str, Any]:
    """Run the command; what it did."""
    shutil.rmtree(destination, ignore_errors=True)
    command = [sys.executable, "-m", "crossdistil", "convert", str(source), str(destination), "--to", to, "--json"]
    done = subprocess.run([*command, *(["--verify"] if verify else [])], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source} to {to}: {done.stderr}")
    return json.loads(done.stdout)


def measure(name: str, source: Path, work: Path, known: dict[str, Any]) -> dict[str, Any]:
    """`a to b` -> figures, for the directions that are not known."""
    found = dict(known)
    folders = {"pytorch": source}
    for framework in FRAMEWORKS[1:]:
        folders[framework] = work / framework
        convert(source, folders[framework], framework, verify=False)
    for a in FRAMEWORKS:
        for b in FRAMEWORKS:
            key = f"{a} to {b}"
            if a == b or key in found:
                continue
            told = convert(folders[a], work / "result", b, verify=True)
            proof = told["verification"]
            found[key] = {
                "tensors": told["tensors"],
                "weights": proof["weights"],
                "worst": proof["worst"],
                "worst_of": {
                    column: max(row["relative"] for row in rows.values()) for column, rows in proof["differences"].items()
                },
            }
            print(f"{name}: {key}: {proof['worst']:.1e}; {proof['weights']}", flush=True)
    return found


def table(result: dict[str, Any]) -> str:
    """A row a direction, a column a model."""
    models = list(result["models"])
    rows = []
    for a in FRAMEWORKS:
        for b in FRAMEWORKS:
            if a != b:
                cells = [result["models"][name].get(f"{a} to {b}") for name in models]
                shown = ["" if cell is None else f"{cell['worst']:.0e}" for cell in cells]
                rows.append([f"{_TITLES[a]} → {_TITLES[b]}", *shown])
    count = sum(len(found) for found in result["models"].values())
    exact = sum(
        "rounded" not in cell["weights"] for found in result["models"].values() for cell in found.values()
    )
    note = (
        f"Largest difference of any output (hidden states of every layer, pooler, heads) from NumPy float64, relative to the "
        f"largest value of that output; computed by NumPy and both frameworks. In {exact} of {count} conversions every weight is "
        "bit for bit the source's."
    )
    return f"{markdown(['direction', *models], rows)}\n\n{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, help="folder of a real pretrained encoder")
    parser.add_argument("--work", type=Path, required=True, help="where the checkpoints are put meanwhile")
    parser.add_argument("--models", type=lambda text: text.split(";"), default=[*MODELS, ENCODER], help="names with ; between")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "conversion_matrix.json")
    options = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "conversion_matrix", "machine": machine(), "models": {}}
    if options.out.is_file():
        result["models"] = json.loads(options.out.read_text(encoding="utf-8"))["models"]
    for name in options.models:
        work = options.work / name.replace(" ", "-").replace(",", "")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        if name == ENCODER:
            copy_model(options.encoder, work / "source")
        else:
            make_model(name, work / "source")
        result["models"][name] = measure(name, work / "source", work, result["models"].get(name, {}))
        write_json(options.out, result)
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
