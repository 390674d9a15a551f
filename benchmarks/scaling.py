"""When 2, 8 or 64 devices pay: a small model of the time of a data-parallel step, from measured times and published figures.

    python benchmarks/scaling.py --measure --out benchmarks/results/scaling_measured.json     # under 3 minutes, two cores
    python benchmarks/results_table.py benchmarks/results/scaling_measured.json docs/large_corpora.md --name scaling

A step of n devices that share a global batch of T tokens takes

    seconds(n) = c T / n + o + 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency

c is the time of a token (forward and backward), o what every device does alike once a step (the optimizer, the host), and the
rest a sum of the float32 gradients over a ring of links (Patarasuk and Yuan 2009), one sum a step, none of it behind the backward
pass: where buckets are summed meanwhile, as on GPUs, a step is faster than that. A token takes as long in a small batch as in a
large one, which is untrue of very small ones. The sizes of gradients and the multiplications come from the project's own models.

Measured are c, o and the sum over two processes of this machine, with torch; what a device or a link is assumed to be stands in
`DEVICES` and `LINKS` with its source, and is called assumed in the table. All figures of the table are computed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.core.app.costs import forward_cost, parameter_count
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.models.outputs import LOGITS

MODELS = {
    "BERT-base, 12 x 768": BertConfig(),
    "MiniLM, 6 x 384": BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
    "TinyBERT, 4 x 312": BertConfig(hidden_size=312, num_hidden_layers=4, intermediate_size=1200),
}
OUTPUTS, TEXTS, LENGTH = 2, 4, 128  # of the classifier that is trained; of a measured micro-batch
GLOBAL_BATCH, COUNTS, PAYS = 256 * LENGTH, (2, 8, 64), 0.8
ROUNDS, SMALL = 3, 4096  # turns, of which the fastest counts; bytes of a sum that is latency alone
LOOPBACK, MEASURED = "this machine", "one core, measured"


@dataclass(frozen=True)
class Link:
    """Bytes a second in each direction, and seconds of a message."""

    name: str
    bandwidth: float
    latency: float
    source: str


@dataclass(frozen=True)
class Device:
    """An accelerator that is assumed: its peak, and the share of it that a step reaches."""

    name: str
    flops: float
    reached: float
    memory: float
    source: str


@dataclass(frozen=True)
class Work:
    """What a step of a model costs one device."""

    seconds_per_token: float
    seconds_per_step: float
    bytes: int


# Latencies are assumptions throughout, of one message in a ring, with the library's own time.
LINKS = {
    "10 GbE": Link("10 GbE", 1.25e9, 50e-6, "IEEE 802.3ae: 10 Gbit/s"),
    "100 Gb": Link("100 Gb InfiniBand or RoCE", 12.5e9, 10e-6, "InfiniBand EDR 4x, IEEE 802.3bj: 100 Gbit/s"),
    "NVLink": Link("NVLink 3", 300e9, 5e-6, "NVIDIA A100 datasheet: 600 GB/s, both directions together"),
    "HCCS": Link("HCCS", 30e9, 10e-6, "Huawei at Hot Chips 31 (2019): ports of 240 Gbit/s, of which a ring uses one"),
}
# The share is that of BERT-base in well-kept public code on an A100 (24 %); 28 bytes of memory a parameter go through AdamW.
DEVICES = {
    "A100": Device("A100, assumed", 312e12, 0.24, 1.5e12, "NVIDIA A100 datasheet: 312 TFLOP/s in bf16, 1.5 TB/s"),
    "Ascend 910": Device("Ascend 910, assumed", 256e12, 0.24, 1.0e12, "Huawei at Hot Chips 31 (2019): 256 TFLOP/s in fp16"),
}
_ADAMW_BYTES = 28
# Device, links within a machine, devices of a machine, links between machines (a ring is as slow as its slowest link).
SITES = (
    (None, LOOPBACK, 2, None),
    (None, "10 GbE", 1, "10 GbE"),
    ("A100", "NVLink", 8, "100 Gb"),
    ("A100", "100 Gb", 1, "100 Gb"),
    ("A100", "10 GbE", 1, "10 GbE"),
    ("Ascend 910", "HCCS", 8, "100 Gb"),
)


def sum_seconds(count: int, size: int, link: Link) -> float:
    """Seconds in which `count` devices on a ring sum `size` bytes that each has."""
    return 2 * (count - 1) / count * size / link.bandwidth + 2 * (count - 1) * link.latency


def step_seconds(work: Work, tokens: float, count: int, link: Link) -> float:
    """Seconds of a step of that many tokens in all."""
    return work.seconds_per_token * tokens / count + work.seconds_per_step + sum_seconds(count, work.bytes, link)


def share_of_ideal(work: Work, tokens: float, count: int, link: Link) -> float:
    """Tokens a second, of `count` times those of one device."""
    return step_seconds(work, tokens, 1, link) / (count * step_seconds(work, tokens, count, link))


def least_batch(work: Work, count: int, link: Link, share: float = PAYS) -> float:
    """Tokens of the smallest global batch that reaches that share of the ideal: of c T + o = share (c T + count (o + sum))."""
    alike = work.seconds_per_step + sum_seconds(count, work.bytes, link)
    return max(0.0, (share * count * alike - work.seconds_per_step) / (work.seconds_per_token * (1 - share)))


def gradient_bytes(config: BertConfig) -> int:
    """Of the float32 gradients of a model with its classifier."""
    return 4 * parameter_count(config, OUTPUTS)


def assumed_work(config: BertConfig, device: Device) -> Work:
    """Of an accelerator: two operations a multiplication, and the backward pass takes twice the forward one."""
    flops = 2 * 3 * forward_cost(config, frozenset({LOGITS}), OUTPUTS, LENGTH)
    update = parameter_count(config, OUTPUTS) * _ADAMW_BYTES / device.memory
    return Work(flops / (device.flops * device.reached), update, gradient_bytes(config))


def measured_work(name: str, measured: dict[str, Any]) -> Work:
    """Of one process of the machine that was measured: from steps of one and of two micro-batches."""
    found = measured["models"][name]
    part = found["seconds_2"] - found["seconds_1"]
    return Work(part / found["tokens"], max(0.0, found["seconds_1"] - part), gradient_bytes(MODELS[name]))


def measured_link(measured: dict[str, Any]) -> Link:
    """Between two processes, from the sums of the fewest and of the most bytes."""
    sums = sorted((found["bytes"], found["seconds"]) for found in measured["sums"])
    (_, least), (size, most) = sums[0], sums[-1]
    return Link(LOOPBACK, size / (most - least), least / 2, measured["backend"])


def table(measured: dict[str, Any]) -> str:
    """What is computed, as a Markdown table with all that is to be said of it."""
    headings = ["model", "device", "links", *(f"{count} devices" for count in COUNTS)]
    links = {**LINKS, LOOPBACK: measured_link(measured)}
    rows = []
    for name, config in MODELS.items():
        for device, inner, size, outer in SITES:
            work = measured_work(name, measured) if device is None else assumed_work(config, DEVICES[device])
            cells = []
            for count in COUNTS:
                link = links.get(inner if count <= size else outer)
                cells.append("" if link is None else _cell(work, count, link))
            called = links[inner].name + (f", {links[outer].name} between machines of {size}" if size > 1 and outer else "")
            rows.append([name, MEASURED if device is None else DEVICES[device].name, called, *cells])
    loopback = links[LOOPBACK]
    sizes = "; ".join(f"{name}: {gradient_bytes(config) / 1e6:.0f} MB" for name, config in MODELS.items())
    speeds = "; ".join(f"{name}: {1 / measured_work(name, measured).seconds_per_token:,.0f}" for name in MODELS)
    latencies = ", ".join(f"{link.latency * 1e6:.0f} µs ({link.name})" for link in LINKS.values())
    sources = "; ".join(f"{each.name.removesuffix(', assumed')}: {each.source}" for each in (*DEVICES.values(), *LINKS.values()))
    return (
        f"{markdown(headings, rows)}\n\n"
        f"**Computed**, not measured, by `benchmarks/scaling.py`: tokens per second as a share of the ideal and, of a step, the "
        f"share of communication, at a global batch of {GLOBAL_BATCH:,} tokens; then the tokens of the global batch from which "
        f"on {PAYS:.0%} of the ideal are reached. One sum of the float32 gradients a step ({sizes}), none of it behind the "
        "backward pass. Machines of 8 have one port of 100 Gb.\n\n"
        f"Measured on {measured['date']}, {measured['machine']['cpu']} at a load of {measured['machine']['load']:.1f}, "
        f"{measured['backend']}: tokens per second of one process with one thread, the optimizer left out ({speeds}); between "
        f"two processes {loopback.bandwidth / 1e9:.1f} GB/s and {loopback.latency * 1e6:.0f} µs a message. All else is assumed: "
        "devices reach 24 % of their peak, an Ascend 910 has 1 TB/s of memory for the optimizer, a message takes "
        f"{latencies}. Published figures: {sources}."
    )


def _cell(work: Work, count: int, link: Link) -> str:
    share = share_of_ideal(work, GLOBAL_BATCH, count, link)
    communication = sum_seconds(count, work.bytes, link) / step_seconds(work, GLOBAL_BATCH, count, link)
    return f"{share:.0%} · {communication:.0%} · {_tokens(least_batch(work, count, link))}"


def _tokens(value: float) -> str:
    return f"{value:,.0f}" if value < 1000 else f"{value / 1000:,.0f} k" if value < 1e6 else f"{value / 1e6:,.1f} M"


def step_work(name: str) -> dict[str, Any]:
    """Seconds of a step of one and of two micro-batches, in processor time: one thread, so that other work counts little."""
    from crossdistil.backends.registry import load_engine
    from crossdistil.core.engine import EngineOptions, Step
    from crossdistil.core.kinds.known_kinds import ONE_CLASS
    from crossdistil.core.losses.base import TermContext
    from crossdistil.core.losses.hard_label import HardLabel
    from crossdistil.core.models.architectures import tensor_shapes
    from crossdistil.core.objective import Objective, Teachers
    from crossdistil.core.optimizers import OptimizerSpec

    config = MODELS[name]
    shapes = tensor_shapes(config, OUTPUTS)
    parameters = {key: config.new_tensor(key, shape, 0) for key, shape in shapes.items()}
    objective = Objective([HardLabel(loss="hard_label")], TermContext(OUTPUTS, ONE_CLASS, config), Teachers({}))
    step = load_engine("torch", EngineOptions("cpu")).train_step(objective.function, parameters, {}, OptimizerSpec("adamw"))
    draws = np.random.default_rng(0)
    batch = {
        "input_ids": draws.integers(1000, 20000, (TEXTS, LENGTH)).astype(np.int32),
        "token_type_ids": np.zeros((TEXTS, LENGTH), np.int32),
        "attention_mask": np.ones((TEXTS, LENGTH), np.float32),
        "example_mask": np.ones(TEXTS, np.float32),
        "label_mask": np.ones(TEXTS, np.float32),
        "labels": draws.integers(0, OUTPUTS, TEXTS).astype(np.int32),
    }

    def seconds(parts: int, number: int) -> float:
        started = time.process_time()
        step.run(iter([Step(objective.prepare([batch] * parts), 1e-5, number)]), 1).fetch()
        return time.process_time() - started

    seconds(2, 0)
    found = [(seconds(1, number), seconds(2, number)) for number in range(ROUNDS)]  # in turn, for both to see the same machine
    one, two = (min(each) for each in zip(*found))
    return {"tokens": TEXTS * LENGTH, "seconds_1": one, "seconds_2": two}


def sum_work(rank: int, port: int) -> list[dict[str, Any]]:
    """Seconds of sums over two processes, of which this is one."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = []
    for size in (SMALL, *sorted(gradient_bytes(config) for config in MODELS.values())):
        values, seconds = torch.ones(size // 4), []
        for _ in range(2 * ROUNDS):
            dist.barrier()
            started = time.perf_counter()
            dist.all_reduce(values)
            seconds.append(time.perf_counter() - started)
        found.append({"bytes": size, "processes": 2, "seconds": min(seconds)})
    dist.destroy_process_group()
    return found


def measure() -> dict[str, Any]:
    """All measurements, each in processes of its own with one thread."""
    load = os.getloadavg()[0]  # of what else runs here
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    models = {}
    for name in MODELS:
        (models[name],) = _answers([["--step", name]])
        print(f"{name}: {json.dumps(models[name])}", flush=True)
    sums = _answers([["--sum", rank, "--port", port] for rank in ("0", "1")])[0]
    return {
        "benchmark": "scaling",
        "date": datetime.date.today().isoformat(),
        "machine": {**machine(), "load": round(load, 1)},
        "backend": f"torch {importlib.metadata.version('torch')}, gloo",
        "models": models,
        "sums": sums,
    }


def _answers(arguments: list[list[str]]) -> list[Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, __file__, *each] for each in arguments]
    started = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True, env=environment) for each in commands]
    told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process of the measurement failed")
    return [json.loads(each.splitlines()[-1]) for each in told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure, and write --out; without it, its table is printed")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "scaling_measured.json")
    parser.add_argument("--step", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--sum", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        return print(json.dumps(step_work(options.step)))
    if options.sum is not None:
        return print(json.dumps(sum_work(options.sum, options.port)))
    if options.measure:
        write_json(options.out, measure())
    print(table(json.loads(options.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
