"""Time and memory of a conversion of BERT-base, beside the usual way: load it in one framework, save it in the other.

    python benchmarks/conversion_speed.py --work runs/conversion-speed

Both sides take turns, each in a process of its own, start included. The usual way gets its names for free: it loads the source's
tensors with the source's framework, hands them over as NumPy arrays, renamed and transposed by our own table, and saves them with
the target's framework. OneFlow lives in another Python, so there it takes two processes and a file between them (times are added,
of the peaks the larger counts). Peaks are the kernel's (VmHWM).
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

from conversion_models import make_model
from tables import NEW_RESULTS, machine, markdown, summary, write_json

from crossdistil.converters.canonical import read_canonical
from crossdistil.converters.configuration import find_config
from crossdistil.converters.dialects import foreign_names
from crossdistil.converters.formats import open_checkpoint
from crossdistil.converters.layouts import LAYOUTS
from crossdistil.converters.recognise import recognise

MODEL = "BERT-base, MLM + NSP"
FRAMEWORKS = ("pytorch", "tf", "mindspore", "oneflow")
_TITLES = {"pytorch": "PyTorch", "tf": "TF", "mindspore": "MindSpore", "oneflow": "OneFlow"}
_PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
"""
_LOAD = {
    "pytorch": "from safetensors.torch import load_file\n"
    "arrays = {name: t.numpy() for name, t in load_file(f'{source}/model.safetensors').items()}",
    "tf": "import tensorflow as tf\nreader = tf.train.load_checkpoint(f'{source}/bert_model.ckpt')\n"
    "arrays = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}",
    "mindspore": "import mindspore as ms\n"
    "arrays = {name: t.asnumpy() for name, t in ms.load_checkpoint(f'{source}/model.ckpt').items()}",
    "oneflow": "import oneflow as flow\n"
    "arrays = {name: t.numpy() for name, t in flow.load(f'{source}/weights').items()}",
    "arrays": "arrays = dict(np.load(f'{source}/arrays.npz'))",
}
_SAVE = {
    "pytorch": "import torch\nfrom safetensors.torch import save_file\n"
    "save_file({n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items()}, f'{out}/model.safetensors')",
    "tf": "import tensorflow as tf\nv1 = tf.compat.v1\ntf.compat.v1.disable_eager_execution()\n"
    "graph = v1.Graph()\n"
    "with graph.as_default(), v1.Session() as session:\n"
    "    variables = {n: v1.get_variable(n, a.shape, tf.float32, v1.zeros_initializer()) for n, a in arrays.items()}\n"
    "    session.run(v1.global_variables_initializer())\n"
    "    for n, a in arrays.items():\n"
    "        variables[n].load(a, session)\n"
    "    v1.train.Saver(variables).save(session, f'{out}/bert_model.ckpt')",
    "mindspore": "import mindspore as ms\n"
    "ms.save_checkpoint([{'name': n, 'data': ms.Tensor(a)} for n, a in arrays.items()], f'{out}/model.ckpt')",
    "oneflow": "import oneflow as flow\nflow.save({n: flow.tensor(a) for n, a in arrays.items()}, f'{out}/weights')",
    "arrays": "np.savez(f'{out}/arrays.npz', **arrays)",
}
_RENAME = """
import json
table = json.load(open(names))
arrays = {new: (arrays[old].T if turn else arrays[old]) for old, (new, turn) in table.items()}
"""


def program(source: str, target: str, folder: Path, out: Path, names: Path | None) -> str:
    """Source of a process of the usual way."""
    head = f"import numpy as np\nsource, out, names = {str(folder)!r}, {str(out)!r}, {str(names)!r}\n{_PEAK}\n"
    rename = "" if names is None else _RENAME
    return f"{head}{_LOAD[source]}\n{rename}\n{_SAVE[target]}\nprint('PEAK', peak())\n"


def timed(command: list[str]) -> tuple[float, float]:
    """(seconds, peak in MiB) of a process that prints its peak."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_v": "3"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    peaks = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("PEAK")]
    if done.returncode or not peaks:
        sys.exit(f"{' '.join(command[:3])}: {done.stderr[-1500:]}")
    return seconds, float(peaks[0])


def ours(source: Path, out: Path, target: str) -> tuple[float, float]:
    """The command line's own entry point, as a process."""
    arguments = ["convert", str(source), str(out), "--to", target]
    code = f"import sys\n{_PEAK}\nsys.argv = ['crossdistil', *{arguments!r}]\nfrom crossdistil.core.app.cli import main\n"
    return timed([sys.executable, "-c", f"{code}try:\n    main()\nfinally:\n    print('PEAK', peak())"])


def usual(source: str, target: str, folder: Path, out: Path, names: Path, oneflow: str) -> tuple[float, float]:
    """The usual way, in as many processes as it takes."""
    out.mkdir()
    python = {name: oneflow if name == "oneflow" else sys.executable for name in FRAMEWORKS}
    if python[source] == python[target]:
        return timed([python[source], "-c", program(source, target, folder, out, names)])
    first = timed([python[source], "-c", program(source, "arrays", folder, out, None)])
    second = timed([python[target], "-c", program("arrays", target, out, out, names)])
    return first[0] + second[0], max(first[1], second[1])


def name_table(folder: Path, target: str, path: Path) -> None:
    """Name in the source -> (name in the target, whether the tensor is turned), for the usual way."""
    checkpoint = open_checkpoint(folder)
    shapes = {name: tensor.info.shape for name, tensor in checkpoint.tensors.items()}
    matches = recognise(shapes, find_config(folder, None)[0]).matches
    wanted = read_canonical(folder)
    dialect = next(iter(LAYOUTS[target].values())).dialect
    names = foreign_names(wanted.tensors, wanted.family, dialect)
    table = {matches[old].source: (new, matches[old].transpose != turn) for old, (new, turn) in names.items()}
    path.write_text(json.dumps(table), encoding="utf-8")


def table(result: dict[str, Any]) -> str:
    """A row a direction."""
    rows = []
    for direction, sides in result["directions"].items():
        us, them = sides["crossdistil"], sides["usual"]
        ratio = summary([b / a for a, b in zip(us["seconds"], them["seconds"])])
        peak, other = max(us["peak_mb"]), max(them["peak_mb"])
        source, _, target = direction.partition(" to ")
        rows.append(
            [
                f"{_TITLES[source]} → {_TITLES[target]}",
                f"{summary(us['seconds'])['median']:.1f}",
                f"{summary(them['seconds'])['median']:.1f}",
                f"{ratio['median']:.1f} ({ratio['min']:.1f} to {ratio['max']:.1f})",
                f"{peak:.0f}",
                f"{other:.0f}",
                f"{other / peak:.1f}",
            ]
        )
    headings = ["direction", "crossdistil, s", "usual way, s", "times faster", "crossdistil, MiB", "usual way, MiB", "times less"]
    note = (
        f"{MODEL}, {result['size_mb']:.0f} MiB in float32, largest tensor {result['largest_mb']:.0f} MiB; medians (smallest to "
        f"largest) of {result['rounds']} turns, processes from start to end, {result['machine']['cpu']}, 1 thread. The usual way "
        "loads the checkpoint in one framework and saves it in the other."
    )
    return f"{markdown(headings, rows)}\n\n{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--oneflow", default=".venv-oneflow/bin/python", help="the Python that has OneFlow")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "conversion_speed.json")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    shutil.rmtree(options.work, ignore_errors=True)
    work = options.work.absolute()
    make_model(MODEL, work / "pytorch")
    for framework in FRAMEWORKS[1:]:
        ours(work / "pytorch", work / framework, framework)
    size = (work / "pytorch" / "model.safetensors").stat().st_size / 2**20
    result: dict[str, Any] = {
        "benchmark": "conversion_speed",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "rounds": options.rounds,
        "size_mb": size,
        "largest_mb": 30522 * 768 * 4 / 2**20,
        "directions": {},
    }
    for a in FRAMEWORKS:
        for b in FRAMEWORKS:
            if a == b:
                continue
            name_table(work / a, b, work / "names.json")
            sides: dict[str, dict[str, list[float]]] = {side: {"seconds": [], "peak_mb": []} for side in ("crossdistil", "usual")}
            for _ in range(options.rounds):
                for side in sides:
                    out = work / "out"
                    shutil.rmtree(out, ignore_errors=True)
                    if side == "crossdistil":
                        figures = ours(work / a, out, b)
                    else:
                        figures = usual(a, b, work / a, out, work / "names.json", options.oneflow)
                    sides[side]["seconds"].append(round(figures[0], 3))
                    sides[side]["peak_mb"].append(round(figures[1], 1))
            result["directions"][f"{a} to {b}"] = sides
            print(f"{a} to {b}: {sides}", flush=True)
            write_json(options.out, result)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
