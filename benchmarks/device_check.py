"""Whether this suite is right and fast on a device, in one command:

    make device-check DEVICE=cuda            (or npu, ascend, cpu, cuda:1)
    python3 benchmarks/device_check.py --device cuda --minutes 8 --out runs/benchmarks

It needs a checkout, the framework (torch; on `ascend` MindSpore) and what the package itself needs; transformers is the rival
of the measurements where it is installed. Nothing is downloaded: models and texts are random and are made here. Operations,
losses, a model of each family and short trainings run on the device in fp32, bf16 and fp16, against NumPy in float64 and against
the CPU; then come the device's matrix products, and tokens a second of a distillation from MiniLM (6 layers x 384) and BERT-base
to half their layers, beside a Hugging Face loop on the same batches, with and without torch.compile.

Each part is a process of its own with a time budget: one that crashes, hangs or fails is told, and the next goes on; what there
is no time for is told as well. All goes into device_check-DEVICE.json and, as tables, into device_check-DEVICE.md. Exit code 0:
nothing is wrong; 1: something is, each told on a line; 2: it could not begin.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ANSWER = "device check answer "
PRECISIONS = ("fp32", "bf16", "fp16")
MEASURED = ("bf16", "fp32", "fp16")
"""In the order of what matters most if time runs out."""


@dataclass(frozen=True)
class Part:
    """Something to find out, in a process of its own."""

    name: str
    precision: str
    seconds: float
    """Its budget."""
    model: str | None = None

    @property
    def title(self) -> str:
        return " ".join(filter(None, [self.name, self.model, self.precision]))


def parts_of(device: str, small: bool) -> list[Part]:
    """What is done on that device, the most important first."""
    kind = device.partition(":")[0]
    # MindSpore compiles each shape of each recipe; a CPU is slow, and has no fp16.
    slow = 2.0 if kind in ("ascend", "cpu") else 1.0
    precisions = PRECISIONS[:2] if kind == "cpu" else PRECISIONS
    parts = [Part("checks", precision, 45 * slow) for precision in precisions]
    parts.append(Part("reference", "fp32", 60 * slow))
    parts += [Part("trainings", precision, 45 * slow) for precision in precisions]
    if kind not in ("cpu", "ascend"):
        parts.append(Part("compiled step", "fp32", 60))
    models = ("MiniLM",) if small else ("MiniLM", "BERT-base")
    measured = ("fp32",) if small else [each for each in MEASURED if each in precisions]
    parts += [Part("speed", precision, 40 * slow, model) for precision in measured for model in models]
    if kind not in ("cpu", "ascend"):
        parts += [Part("compiled speed", "bf16", 80, model) for model in models]
    return parts


def work(part: Part, settings: Any) -> Iterator[dict[str, Any]]:
    """What a part finds, here."""
    import device_findings
    import device_speed
    import device_trainings

    from crossdistil.core.errors import BackendError

    try:
        engine = settings.engine
    except BackendError as error:
        yield {"name": "device", "ok": None, "value": str(error)}
        return
    yield {"name": "device", "ok": True, "value": engine.device, "versions": engine.versions()}
    seconds = part.seconds * 0.8
    functions = {
        "reference": [device_trainings.reference_trainings],
        "checks": [device_findings.operations, device_findings.losses, device_trainings.models],
        "trainings": [device_trainings.trainings],
        "compiled step": [device_trainings.compiled_step],
        "speed": [device_speed.peak, lambda given: device_speed.speed(given, part.model, seconds)],
        "compiled speed": [lambda given: device_speed.compiled_speed(given, part.model, seconds)],
    }
    for function in functions[part.name]:
        # A function that fails outside its own attempts still lets the others go on.
        yield from device_findings.attempted(part.name, lambda function=function: function(settings))


def settings_of(part: Part, device: str, folder: Path, small: bool) -> Any:
    """What `work` takes."""
    from device_findings import Settings

    return Settings(framework_of(device), "cpu" if part.name == "reference" else device, part.precision, folder, small)


def framework_of(device: str) -> str:
    """Which backend has that device."""
    return "mindspore" if device.partition(":")[0] == "ascend" else "torch"


def started(part: Part, device: str, folder: Path, small: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """What a part finds, in a process of its own that has so many seconds."""
    given = json.dumps({"part": vars(part), "device": device, "folder": str(folder), "small": small})
    yield from answers([sys.executable, str(Path(__file__).resolve()), "--work", given], seconds, folder / "errors.txt")


def answers(command: list[str], seconds: float, errors: Path) -> Iterator[dict[str, Any]]:
    """The answers of a process, each as soon as it is there; how it ended is the last one where it did not end well."""
    lines: queue.Queue[str | None] = queue.Queue()
    with errors.open("wb") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, errors="replace")

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline, ended = time.monotonic() + seconds, False
    try:
        while not ended:
            left = deadline - time.monotonic()
            try:
                line = lines.get(timeout=max(0.0, left))
            except queue.Empty:
                yield {"name": "time", "ok": False, "value": f"not finished after its {seconds:.0f} s, and stopped"}
                return
            ended = line is None
            if not ended and line.startswith(ANSWER):
                yield json.loads(line.removeprefix(ANSWER))
        code = process.wait(timeout=10)
        if code:
            said = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()]
            yield {"name": "process", "ok": False, "value": ": ".join([f"ended with exit code {code}", *said[-1:]])[:400]}
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def check(device: str, minutes: float, small: bool, run: Callable[..., Iterator[dict]] = started) -> dict[str, Any] | None:
    """Do all parts that there is time for; returns what was found. None, and a message, where there is no such device."""
    began, findings, left_out = time.monotonic(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts_of(device, small):
            left = minutes * 60 - (time.monotonic() - began)
            if left < 5:
                left_out.append(part.title)
                continue
            own, since = [], time.monotonic()
            for finding in run(part, device, Path(folder), small, min(part.seconds, left)):
                own.append(finding | {"part": part.name, "precision": part.precision})
                if finding["ok"] is False:
                    print(f"  wrong: {part.title}: {told(finding)}", flush=True)
            if not findings and [each["ok"] for each in own] == [None]:
                _problem(own[0]["value"])
                return None
            print(f"{part.title}: {summed(own)}, {time.monotonic() - since:.0f} s", flush=True)
            findings += own
    return {
        "benchmark": "device_check",
        "device": device,
        "versions": next((each["versions"] for each in findings if "versions" in each), {}),
        "minutes": round((time.monotonic() - began) / 60, 2),
        "small": small,
        "not_run": left_out,
        "faults": [each for each in findings if each["ok"] is False],
        "findings": findings,
    }


def told(finding: dict[str, Any]) -> str:
    """A finding on a line."""
    value, limit = finding.get("value"), finding.get("limit")
    shown = f"{value:.2e}" if isinstance(value, float) else str(value)
    expected = f", expected at most {limit:.0e}" if isinstance(limit, float) else f", expected {limit}" if limit else ""
    return f"{finding['name']}: {shown}{expected}"


def summed(found: list[dict[str, Any]]) -> str:
    """How many findings are right."""
    right, wrong, without = (sum(each["ok"] is ok for each in found) for ok in (True, False, None))
    if without and not right and not wrong:
        return f"not here: {found[0]['value']}"
    return f"{right} right" + (f", {wrong} WRONG" if wrong else "") + (f", {without} not here" if without else "")


def tables(result: dict[str, Any]) -> str:
    """What was found, for people."""
    from tables import markdown

    parts: dict[tuple[str, str], list[dict]] = {}
    for finding in result["findings"]:
        parts.setdefault((finding["part"], finding["precision"]), []).append(finding)
    rows = [[name, precision, summed(found)] for (name, precision), found in parts.items()]
    text = markdown(["part", "precision", "found"], rows)
    peaks = {each["precision"]: each["tflops"] for each in result["findings"] if "side" in each}
    rows = []
    for each in result["findings"]:
        if "tokens_per_second" in each:
            peak, ratio, memory = peaks.get(each["precision"]), each["crossdistil_is_faster_by"], each["memory_mb"]
            faster = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
            share = "" if peak is None else f"{each['tflops'] / peak:.0%}"
            rows.append([
                f"{each['model']}, {'one length, ' if each['part'] == 'compiled speed' else ''}{each['system']}",
                each["precision"],
                f"{each['tokens_per_second']['median']:,.0f}",
                f"{each['tflops']:.2f}",
                share,
                "" if memory is None else f"{memory:,.0f}",
                faster if each["system"] != "crossdistil" else "",
            ])  # fmt: skip
    headings = ["training", "precision", "tokens/s", "TFLOP/s", "of matrix products", "MiB", "crossdistil is faster by"]
    if rows:
        text += "\n\n" + markdown(headings, rows)
    if peaks:
        text += "\n\nMatrix products: " + ", ".join(f"{name} {rate:.2f} TFLOP/s" for name, rate in peaks.items()) + "."
    where = ", ".join(f"{key} {value}" for key, value in (result["machine"] | result["versions"]).items())
    return f"{text}\n\nDevice {result['device']}; {where}.\n"


def find_package() -> None:
    """Make this checkout the package `crossdistil`, whatever its folder is called and whether or not it is installed."""
    place, folders = ROOT / "__init__.py", [str(ROOT)]
    specification = importlib.util.spec_from_file_location("crossdistil", place, submodule_search_locations=folders)
    module = importlib.util.module_from_spec(specification)
    sys.modules["crossdistil"] = module
    specification.loader.exec_module(module)


def missing(framework: str) -> str | None:
    """What this Python lacks, in words. One without the framework becomes that of the checkout's environment, if there is one."""
    if importlib.util.find_spec(framework) is None:
        own = ROOT / ".venv" / "bin" / "python"
        if own.is_file() and own.resolve().parent != Path(sys.executable).resolve().parent and sys.prefix == sys.base_prefix:
            os.execv(own, [str(own), *sys.argv])
        return f"{framework} is not installed in {sys.executable}"
    try:
        import crossdistil.core.app.run  # noqa: F401
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed in {sys.executable}: {Path(sys.executable).name} -m pip install {ROOT}"
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, npu, ascend (MindSpore) or cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="what is not begun by then is left out")
    parser.add_argument("--small", action="store_true", help="a few checks of each kind, to see that this script works")
    parser.add_argument("--out", type=Path, default=Path("runs") / "benchmarks", help="folder of the JSON and the table")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if "crossdistil" not in sys.modules:
        find_package()
    if options.work:
        os.environ["CROSSDISTIL_CACHE"] = str(Path(options.work["folder"]) / "cache")
        given, part = options.work, Part(**options.work["part"])
        for finding in work(part, settings_of(part, given["device"], Path(given["folder"]), given["small"])):
            print(ANSWER + json.dumps(finding), flush=True)
        return 0
    device = options.device
    if not re.fullmatch(r"(cuda|npu)(:\d+)?|ascend(:\d+)?|cpu", device):
        return _problem(f"device '{device}': expected cuda, npu, ascend or cpu")
    lacks = missing(framework_of(device))
    if lacks:
        return _problem(lacks)
    from tables import machine, write_json

    result = check(device, options.minutes, options.small)
    if result is None:
        return 2
    result["machine"] = machine()
    path = options.out / f"device_check-{device.replace(':', '-')}.json"
    write_json(path, result)
    text = tables(result)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    if result["not_run"]:
        print(f"not run, since {options.minutes:g} minutes were over: {', '.join(result['not_run'])}")
    for fault in result["faults"]:
        print(f"wrong: {fault['part']} {fault['precision']}: {told(fault)}")
    verdict = "something is wrong" if result["faults"] else "nothing is wrong"
    print(f"{verdict}; written to {path} and {path.with_suffix('.md').name}")
    return 1 if result["faults"] else 0


def _problem(text: str) -> int:
    print(f"device_check: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
