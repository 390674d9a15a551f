"""What `device_check.py` measures: the device's matrix products, and steps of a distillation beside a Hugging Face loop on the
same batches. Weights and texts are random: speed does not depend on them.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from device_findings import Finding, Settings
from gemm_peak import Products, step_operations
from huggingface_sides import Crossdistil, HuggingFace
from kd_job import KdJob, job_of
from tables import summary

from crossdistil.core.checkpoint import Model
from crossdistil.core.data.batches import length_buckets, real_tokens
from crossdistil.core.data.token_table import TokenTable
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig

MODELS = {
    "MiniLM": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "BERT-base": {},
}
"""Teachers; a student has every second layer."""
_SMALL = {"vocab_size": 500, "hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 128}
MEAN_TOKENS, MAX_TOKENS, ONE_LENGTH = 27, 128, 64
"""Texts are as long as those of GLUE: 27 tokens in the mean, a few of more than 100."""
_SIDE = {"cpu": 1024, "small": 128, "device": 8192}
_TURN_SECONDS, _ROUNDS = 1.0, 7


def peak(settings: Settings) -> Iterator[Finding]:
    """The fastest that square matrix products are here: TFLOP/s."""
    side = _SIDE["small" if settings.small else "cpu" if settings.device == "cpu" else "device"]
    products = Products(settings.engine, side)
    rate = max(products.rate(time.perf_counter) for _ in range(5)) / 1e12
    yield {"name": "matrix products", "ok": bool(np.isfinite(rate)), "tflops": rate, "side": side}


def random_job(model: str, settings: Settings, one_length: bool) -> KdJob:
    """A teacher and texts."""
    config = BertConfig(**(_SMALL if settings.small else MODELS[model]))
    shapes = tensor_shapes(config, 2)
    weights = {name: config.new_tensor(name, shape, 0) for name, shape in shapes.items()}
    batch_size = 4 if settings.small else 32 if settings.device == "cpu" else 128
    generator = np.random.default_rng(1)
    longest = ONE_LENGTH if one_length else MAX_TOKENS
    lengths = np.clip(generator.gamma(2.5, MEAN_TOKENS / 2.5, 60 * batch_size), 5, longest).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(1, config.vocab_size, offsets[-1]).astype(np.int32)
    labels = generator.integers(0, 2, len(lengths)).astype(np.int32)
    tokens = TokenTable(ids, offsets, lengths.astype(np.int32))
    buckets = (ONE_LENGTH,) if one_length else length_buckets(MAX_TOKENS, settings.engine.length_step)
    teacher = Model(config, weights, 2, ("negative", "positive"))
    return job_of(teacher, teacher.labels, tokens, labels, batch_size, buckets)


class Memory:
    """The largest memory of the device that was taken since this was made, beyond what was there."""

    def __init__(self, device: str):
        import torch

        kind = device.partition(":")[0]
        self._device = None if kind == "cpu" else getattr(torch, kind)
        if self._device is not None:
            self._device.reset_peak_memory_stats()
            self._before = self._device.memory_allocated()

    def taken_mb(self) -> float | None:
        """MiB; None on a CPU."""
        return None if self._device is None else (self._device.max_memory_allocated() - self._before) / 2**20


def speed(settings: Settings, model: str, seconds: float) -> Iterator[Finding]:
    """Tokens a second of crossdistil and of transformers, in turns."""
    yield from _raced(settings, model, seconds, {"crossdistil": False}, {"transformers, SDPA": False}, one_length=False)


def compiled_speed(settings: Settings, model: str, seconds: float) -> Iterator[Finding]:
    """The same with and without torch.compile, in batches of one length, so that there is one compilation each."""
    ours = {"crossdistil": False, "crossdistil, compiled": True}
    theirs = {"transformers, SDPA": False, "transformers, compiled": True}
    yield from _raced(settings, model, seconds, ours, theirs, one_length=True)


def _raced(settings, model, seconds, ours: dict[str, bool], theirs: dict[str, bool], one_length: bool) -> Iterator[Finding]:
    deadline, job = time.monotonic() + seconds, random_job(model, settings, one_length)
    turns: dict[str, Callable[[int, int], None]] = {}
    memory: dict[str, float | None] = {}
    if settings.backend != "torch" or importlib.util.find_spec("transformers") is None:
        theirs = {}
        yield {"name": f"{model}: transformers", "ok": None, "value": "nothing to compare with: needs torch and transformers"}
    for name, compiled in (ours | theirs).items():
        taken = Memory(settings.device) if settings.backend == "torch" else None
        try:
            turns[name] = _turn(name in ours, job, settings, compiled)
            turns[name](0, 2)
        except Exception as error:  # memory, a compiler that is missing: the others are measured all the same
            turns.pop(name, None)
            yield {"name": f"{model}: {name}", "ok": False, "value": f"{type(error).__name__}: {error}"[:400]}
            continue
        memory[name] = None if taken is None else taken.taken_mb()
    if not turns:
        return
    count, speeds = 1, {name: [] for name in turns}
    for number in range(-1, 1 if settings.small else _ROUNDS):
        epoch = number + 2
        tokens = sum(real_tokens(batch) for (batch,) in islice(job.batches.epoch(epoch), count))
        names = list(turns)
        turn = max(number, 0) % len(names)
        slowest = 0.0
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            turns[name](epoch, count)
            took = time.perf_counter() - started
            slowest = max(slowest, took)
            if number >= 0:
                speeds[name].append(tokens / took)
        if number < 0 and not settings.small:
            count = int(min(50, max(1, _TURN_SECONDS / slowest)))
        elif time.monotonic() + slowest * len(names) * 1.5 > deadline:
            break
    work = step_operations(job, MEAN_TOKENS)
    for name, values in speeds.items():
        rate = summary(values)
        yield {
            "name": f"{model}: {name}",
            "ok": True,
            "model": model,
            "system": name,
            "tokens_per_second": rate,
            "tflops": rate["median"] * work / 1e12,
            "memory_mb": memory[name],
            "crossdistil_is_faster_by": summary([a / b for a, b in zip(speeds[next(iter(speeds))], values, strict=True)]),
            "steps": count,
            "batch_size": len(next(job.batches.epoch(0))[0]["labels"]),
        }


def _turn(is_ours: bool, job: KdJob, settings: Settings, compiled: bool) -> Callable[[int, int], Any]:
    """`turn(epoch, count)`: so many steps from the start of an epoch, to their end."""
    if is_ours:
        return Crossdistil(job, settings.device, settings.precision, compiled, settings.backend).run
    rival = HuggingFace(job, settings.device, settings.precision, compiled)
    return lambda epoch, count: rival.run(batch for (batch,) in islice(job.batches.epoch(epoch), count))
