"""Where the processor time of a step of distillation goes, by kind of work, in the torch backend on a CPU.

    python benchmarks/step_profile.py --version after --model-folder models/minilm --data data/SST-2
    PYTHONPATH=../before python benchmarks/step_profile.py --version before ...       the package of an earlier version

A student of every second layer learns from its teacher (`benchmarks/kd_job.py`), one thread, in batches as training makes them.
PyTorch's profiler says how a step's time is shared out; the step's processor time is taken without it. Each call adds its
version to the file, so that two can be compared.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path

from kd_job import OPTIMIZER, kd_job
from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.backends.registry import load_engine  # before torch: the engine sets how torch takes memory
from crossdistil.core.data.batches import real_tokens
from crossdistil.core.engine import EngineOptions

KINDS = {
    "linear maps": ("mkldnn::_linear_pointwise", "aten::addmm", "aten::mm"),
    "attention": (
        "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::exp_",
        "aten::amax", "aten::addcmul_", "aten::reciprocal_", "aten::sub_",
    ),
    "activations": ("aten::gelu", "aten::gelu_backward", "aten::tanh", "aten::tanh_backward"),
    "normalisation": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "optimizer, norm of the gradient": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
    "look-ups and new memory": (
        "aten::fill_", "aten::zero_", "aten::embedding_dense_backward", "aten::index_select", "aten::_index_put_impl_",
        "aten::_unique2", "aten::empty", "aten::empty_strided",
    ),
    "sums and products of elements": (
        "aten::add", "aten::add_", "aten::mul", "aten::mul_", "aten::sum", "aten::where", "aten::div", "aten::sub",
    ),
    "copies and changes of type": ("aten::copy_",),
}  # fmt: skip
REST = "all else, Python too"


def profiled(job, precision: str, count: int) -> dict:
    """Milliseconds of a step by kind, and tokens per second."""
    engine = load_engine("torch", EngineOptions("cpu", precision))
    from torch.profiler import ProfilerActivity, profile

    step = engine.train_step(job.objective.function, job.student.parameters, job.frozen, OPTIMIZER)
    steps = list(islice(job.steps(0), count))
    tokens = sum(real_tokens(batch) for each in steps for batch in each.micro_batches)

    def run():
        started = time.process_time()
        step.run(iter(steps), count).fetch()
        return time.process_time() - started

    run()
    took = min(run() for _ in range(3))
    with profile(activities=[ProfilerActivity.CPU]) as found:
        whole = run()
    known = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
    whole = max(whole, sum(known.values()))  # the profiler's clock goes on while another program has the processor
    shares = {kind: sum(known.get(name, 0.0) for name in names) / whole for kind, names in KINDS.items()}
    shares[REST] = max(0.0, 1.0 - sum(shares.values()))
    milliseconds = {kind: round(1000 * took / count * share, 2) for kind, share in shares.items()}
    return {"milliseconds": milliseconds, "step": round(1000 * took / count, 1), "tokens_per_second": round(tokens / took)}


def table(result: dict) -> str:
    """The result as Markdown."""
    versions, settings = list(result["versions"]), result["settings"]
    precisions = list(result["versions"][versions[0]])
    heads = [f"{precision}, {version}" for precision in precisions for version in versions]
    found = [result["versions"][version][precision] for precision in precisions for version in versions]
    rows = [[kind, *(f"{each['milliseconds'][kind]:.1f}" for each in found)] for kind in [*KINDS, REST]]
    rows.append(["a step", *(f"{each['step']:.1f}" for each in found)])
    rows.append(["tokens/s", *(f"{each['tokens_per_second']:,.0f}" for each in found)])
    text = (
        f"Milliseconds of processor time of a step, one thread, batches of {settings['batch']} texts of similar length: "
        f"{settings['layers'][0]} to {settings['layers'][1]} layers x {settings['width']}. Means of {settings['steps']} steps, "
        "the fastest of three turns; shared out as PyTorch's profiler says."
    )
    return f"{markdown(['kind of work', *heads], rows)}\n\n{text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True, help="what to call this version of the package")
    parser.add_argument("--model-folder", type=Path, required=True, help="the teacher, or an encoder without a head")
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2's train.tsv")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "step_profile.json")
    options = parser.parse_args()
    job = kd_job(options.model_folder, options.data, "sst-2", options.batch, 128, 1)
    found = {precision: profiled(job, precision, options.steps) for precision in ("fp32", "bf16")}
    layers = [model.config.num_hidden_layers for model in (job.teacher, job.student)]
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {"versions": {}}
    settings = {"batch": options.batch, "steps": options.steps, "layers": layers, "width": job.teacher.config.hidden_size}
    result = {"benchmark": "step_profile", "machine": machine(), "settings": settings, "versions": kept["versions"]}
    result["versions"][options.version] = found
    write_json(options.out, result)
    print(table(result))


if __name__ == "__main__":
    main()
