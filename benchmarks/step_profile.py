"""Where the processor time of a step of distillation goes on a CPU, by kind of work.

    python benchmarks/step_profile.py --version after --model-folder models/minilm --data data/SST-2
    PYTHONPATH=../before python benchmarks/step_profile.py --version before ...       the package of an earlier version
    python benchmarks/step_profile.py --backend mindspore --version after ...         batches of one shape, which compile once

A student of every second layer learns from its teacher (`benchmarks/kd_job.py`), one thread, in batches as training makes them.
How a step's time is shared out is measured apart (`step_shares.py`); the step's processor time is taken without that. Each call
adds its version to the file, so that two can be compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from gemm_peak import Products, linear_maps_alone
from kd_job import OPTIMIZER, KdJob, kd_job
from step_shares import ALL_ELSE, BY, KINDS
from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.backends.registry import load_engine  # before torch: the engine sets how torch takes memory
from crossdistil.core.data.batches import real_tokens
from crossdistil.core.engine import Engine, EngineOptions, Step

PRECISIONS = {"torch": ("fp32", "bf16"), "mindspore": ("fp32",), "oneflow": ("fp32",)}
MEANS = {
    "torch": "shared out as PyTorch's profiler says",
    "mindspore": "shared out by the operations that MindSpore's profiler saw and the processor time meanwhile",
    "oneflow": "shared out by operations that were each waited for; all else has the residual sums and the losses",
}
_SIDE = 1024


def profiled(job: KdJob, backend: str, precision: str, count: int) -> dict:
    """Milliseconds of a step by kind, and tokens per second."""
    engine = load_engine(backend, EngineOptions("cpu", precision))
    step = engine.train_step(job.objective.function, job.student.parameters, job.frozen, OPTIMIZER)
    steps = list(islice(_of_one_shape(job.steps(0)) if engine.length_step is None else job.steps(0), count))
    tokens = sum(real_tokens(batch) for each in steps for batch in each.micro_batches)

    def run() -> float:
        started = time.process_time()
        step.run(iter(steps), count).fetch()
        return time.process_time() - started

    run()
    took = min(run() for _ in range(3))
    whole, known = BY[backend](run, engine.ops)
    shares = {kind: sum(known.get(name, 0.0) for name in names) / whole for kind, names in KINDS[backend].items()}
    shares[ALL_ELSE] = max(0.0, 1.0 - sum(shares.values()))
    milliseconds = {kind: round(1000 * took / count * share, 2) for kind, share in shares.items()}
    found = {"milliseconds": milliseconds, "step": round(1000 * took / count, 1), "tokens_per_second": round(tokens / took)}
    return found if backend != "torch" else found | _alone(engine, run, count)


def _alone(engine: Engine, run: Callable[[], float], count: int) -> dict:
    """How long the linear maps of a step take by themselves, and how fast they and large products are."""
    products = Products(engine, _SIDE)
    peak = max(products.rate(time.process_time) for _ in range(5))
    seconds, operations = linear_maps_alone(run)
    return {
        "maps_alone": round(1000 * seconds / count, 1),
        "maps_gflops": round(operations / seconds / 1e9),
        "peak_gflops": round(peak / 1e9),
    }


def _of_one_shape(steps: Iterator[Step]) -> Iterator[Step]:
    """The steps whose batches have the shape of the first."""
    first = None
    for step in steps:
        shape = step.micro_batches[0]["input_ids"].shape
        first = first or shape
        if shape == first:
            yield step


def table(result: dict) -> str:
    """The result as Markdown."""
    versions, settings = list(result["versions"]), result["settings"]
    precisions = list(result["versions"][versions[0]])
    heads = [f"{precision}, {version}" for precision in precisions for version in versions]
    found = [result["versions"][version][precision] for precision in precisions for version in versions]
    rows = [[kind, *(f"{each['milliseconds'][kind]:.1f}" for each in found)] for kind in found[0]["milliseconds"]]
    rows.append(["a step", *(f"{each['step']:.1f}" for each in found)])
    if any("maps_alone" in each for each in found):
        alone = (each.get("maps_alone") for each in found)
        rows.append(["its linear maps, each alone", *("" if taken is None else f"{taken:.1f}" for taken in alone)])
    rows.append(["tokens/s", *(f"{each['tokens_per_second']:,.0f}" for each in found)])
    text = (
        f"Milliseconds of processor time of a step, one thread, batches of {settings['batch']} texts of similar length: "
        f"{settings['layers'][0]} to {settings['layers'][1]} layers x {settings['width']}. Means of {settings['steps']} steps, "
        f"the fastest of three turns; {MEANS[settings.get('backend', 'torch')]}."
    )
    reached = [
        f"{each['maps_gflops']:,} GFLOP/s ({name}), {each['maps_gflops'] / each['peak_gflops']:.0%} of large products' "
        f"{each['peak_gflops']:,}"
        for name, each in zip(heads, found)
        if "maps_alone" in each
    ]
    if reached:
        text += f" Each alone, with all that it takes in the caches, the linear maps of a step reach {'; '.join(reached)}."
    return f"{markdown(['kind of work', *heads], rows)}\n\n{text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True, help="what to call this version of the package")
    parser.add_argument("--backend", choices=KINDS, default="torch")
    parser.add_argument("--model-folder", type=Path, required=True, help="the teacher, or an encoder without a head")
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2's train.tsv")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "step_profile.json")
    options = parser.parse_args()
    length_step = None if options.backend == "mindspore" else 1
    job = kd_job(options.model_folder, options.data, "sst-2", options.batch, 128, length_step)
    precisions = PRECISIONS[options.backend]
    found = {precision: profiled(job, options.backend, precision, options.steps) for precision in precisions}
    layers = [model.config.num_hidden_layers for model in (job.teacher, job.student)]
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {"versions": {}}
    settings = {"backend": options.backend, "batch": options.batch, "steps": options.steps, "layers": layers}
    settings["width"] = job.teacher.config.hidden_size
    result = {"benchmark": "step_profile", "machine": machine(), "settings": settings, "versions": kept["versions"]}
    result["versions"][options.version] = found
    write_json(options.out, result)
    print(table(result))


if __name__ == "__main__":
    main()
