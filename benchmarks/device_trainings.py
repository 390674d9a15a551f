"""What `device_check.py` finds out about models and trainings on a device, held against NumPy in float64 and against the CPU."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import numpy as np
from device_findings import GRADIENT, VALUE, Finding, Settings, attempted, compared, outputs_of, within

from crossdistil.backends.registry import load_engine
from crossdistil.core.app.api import run
from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.models.architectures import make_forward
from crossdistil.core.models.families import CONFIGURATIONS
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.recipe import load_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny

LOSS = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}
"""Largest relative difference of a first loss; in float32 of every loss."""
LAST = 0.25
"""In bf16 and fp16 a training takes a way of its own: so far may the mean of its last losses be from float32's, as a share of the
first loss."""


def models(settings: Settings) -> Iterator[Finding]:
    """A small model of every family: outputs against float64, gradients of a loss against the CPU's."""
    chosen = {"bert", "bilstm"} if settings.small else set(CONFIGURATIONS)
    for name, configuration in CONFIGURATIONS.items():
        if name in chosen:
            yield from attempted(name, lambda name=name, configuration=configuration: _model(settings, name, configuration))


def _model(settings: Settings, name: str, configuration) -> Iterator[Finding]:
    precision, batch = settings.precision, tiny.random_batch(rows=8, length=40)
    if configuration.family.is_encoder:
        sizes = {"vocab_size": tiny.CONFIG.vocab_size, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 128, "max_position_embeddings": 80}
        config = configuration(**{configuration.own_key(key): value for key, value in sizes.items()}).without_dropout()
    else:
        config = configuration(vocab_size=tiny.CONFIG.vocab_size, embedding_size=32, hidden_size=24).without_dropout()
    parameters = tiny.random_parameters(config)
    forward = make_forward(config, frozenset({"logits"}))

    def logits(ops, parameters, batch):
        return forward(ops, parameters, batch)["logits"]

    exact = {key: array.astype(np.float64) for key, array in parameters.items()}
    [found] = settings.engine.infer(outputs_of(logits), parameters)(batch)
    yield compared(f"{name}: logits", found, logits(ReferenceOps(), exact, batch), 5 * VALUE[precision])
    if settings.cpu is None:
        return
    objective = Objective([LOSSES["hard_label"](loss="hard_label")], TermContext(2, ONE_CLASS, config), Teachers({}))
    [prepared] = objective.prepare([batch])
    (_, expected), (_, found) = (
        engine.gradients(objective.function, parameters, {}, prepared) for engine in (settings.cpu, settings.engine)
    )
    whole = math.sqrt(sum(float(np.square(array).sum()) for array in expected.values()))
    # The whole gradient's length is the scale: single tensors are differences of large terms.
    apart = max(float(np.linalg.norm(found[key] - expected[key])) for key in expected) / whole
    yield within(f"{name}: gradients against the CPU's", apart, GRADIENT[precision])


RECIPES = {
    "kd": ["student.architecture.num_hidden_layers=2", "student.init.layers=[0, 2]"],
    "pkd": ["student.architecture.num_hidden_layers=2", "student.init.layers=[0, 1]"],
    "minilm": ["student.architecture.num_hidden_layers=2", "student.init.layers=[0, 2]"],
    "tinybert_td": [
        "student.architecture={num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 32}",
        "student.init={from: random}",
    ],
    "theseus": ["student.architecture.num_hidden_layers=2", "student.init.layers=[0, 1]"],
    "bilstm": [],
    "mlm": [],
}
"""Recipe -> settings that fit a teacher of four layers."""
STEPS = 16
_FEW = ("kd",)


def reference_trainings(settings: Settings) -> Iterator[Finding]:
    """The recipes on the CPU in float32: what those on the device are compared with."""
    for name in _recipes(settings):
        yield from attempted(name, lambda name=name: _cpu_training(settings, name))


def _cpu_training(settings: Settings, name: str) -> Iterator[Finding]:
    found = _trained(settings, name, "reference")
    (settings.folder / f"{name}.json").write_text(json.dumps(found))
    yield {"name": f"{name}: on the CPU", "ok": all(map(math.isfinite, found)), "value": found[-1]}


def trainings(settings: Settings) -> Iterator[Finding]:
    """Short runs of recipes through the whole product, then what steps must keep: resuming, accumulation, and no harm by a loss
    that is not finite."""
    for name in _recipes(settings):
        yield from attempted(name, lambda name=name: _training(settings, name))
    yield from attempted("steps", lambda: _steps(settings))


def _recipes(settings: Settings) -> tuple[str, ...]:
    # MindSpore compiles each of them for a minute.
    return _FEW if settings.small or settings.backend == "mindspore" else tuple(RECIPES)


def _training(settings: Settings, name: str) -> Iterator[Finding]:
    found = _trained(settings, name, f"trained-{settings.precision}")
    expected = json.loads((settings.folder / f"{name}.json").read_text())
    limit = LOSS[settings.precision]
    if not all(map(math.isfinite, found)) or len(found) != len(expected):
        yield {"name": f"{name}: losses", "ok": False, "value": found}
        return
    yield within(f"{name}: first loss", abs(found[0] / expected[0] - 1), limit)
    if settings.precision == "fp32":
        yield within(f"{name}: worst loss of {len(found)}", max(abs(a / b - 1) for a, b in zip(found, expected)), limit)
    else:
        last = abs(float(np.mean(found[-4:]) - np.mean(expected[-4:]))) / abs(expected[0])
        yield within(f"{name}: last losses", last, LAST)


def _trained(settings: Settings, name: str, kind: str) -> list[float]:
    """The loss of each step of a recipe without dropout."""
    folder = settings.folder
    if not (folder / "teacher").exists():
        tiny.write_model(folder / "teacher", tiny.CONFIG.model_copy(update={"num_hidden_layers": 4}))
        tiny.write_task(folder / "task", 256, 32)
        (folder / "corpus.txt").write_text("\n".join(tiny.sentences(200, 9)[0]) + "\n", encoding="utf-8")
    recipe = load_recipe(name)
    overrides = [*RECIPES[name], f"task.data={folder / ('task' if name != 'mlm' else 'corpus.txt')}"]
    overrides.append("task.max_length=16")
    overrides.append(f"student.init.from={folder / 'teacher'}" if name == "mlm" else f"teacher.model={folder / 'teacher'}")
    for index in range(len(recipe.stages)):
        train = {"steps": STEPS, "epochs": "null", "batch_size": 16, "log_every": 1, "evaluate_every": STEPS, "save_every": STEPS}
        train |= {"dropout": 0, "length_buckets": "[16]", "warmup": 0}
        overrides += [f"stages.{index}.train.{key}={value}" for key, value in train.items()]
    out = folder / f"{name}-{kind}"
    options = {"backend": settings.backend, "device": settings.device, "precision": settings.precision, "quiet": True}
    run(name, out=out, overrides=overrides, report=False, latency=False, **options)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def _steps(settings: Settings) -> Iterator[Finding]:
    """Steps of a distillation, taken directly."""
    config = tiny.CONFIG
    objectives = {}
    for name, chosen in (("with dropout", config), ("without", config.without_dropout())):
        context = TermContext(2, ONE_CLASS, chosen, {"teacher": config})
        terms = [LOSSES["kd_ce"](loss="kd_ce", temperature=2), LOSSES["hard_label"](loss="hard_label")]
        objectives[name] = Objective(terms, context, Teachers({"teacher": 1.0}))
    frozen = {f"teacher/{name}": array for name, array in tiny.random_parameters(config, seed=3).items()}
    parameters = tiny.random_parameters(config)
    batches = [tiny.random_batch(rows=8, length=16, fill=0, seed=seed) for seed in range(6)]

    def made(name: str):
        return settings.engine.train_step(objectives[name].function, parameters, frozen, OptimizerSpec("adamw"))

    def steps(name: str, chosen, parts: int = 1):
        for number, batch in enumerate(chosen):
            cut = [{key: array[part::parts] for key, array in batch.items()} for part in range(parts)]
            yield Step(objectives[name].prepare(cut), 1e-3, number)

    def taken(step, those) -> np.ndarray:
        those = list(those)
        return step.run(iter(those), len(those)).fetch()[:, 0]

    every = list(steps("with dropout", batches))
    whole, first = made("with dropout"), made("with dropout")
    expected = taken(whole, every)
    taken(first, every[:3])
    again = made("with dropout")
    again.restore(first.parameters(), first.state())
    yield compared("resumed: the losses of the next steps", taken(again, every[3:]), expected[3:], 1e-6)
    one, two = (taken(made("without"), steps("without", batches, parts)) for parts in (1, 2))
    yield compared("accumulation: 1 part and 2", two, one, {"fp32": 1e-5}.get(settings.precision, LOSS[settings.precision]))
    broken = made("without")
    [bad] = steps("without", [batches[0] | {"example_mask": np.full(8, np.nan, np.float32)}])
    before = broken.parameters()
    taken(broken, [bad])
    after = broken.parameters()
    same = all(np.array_equal(before[name], after[name]) for name in before)
    yield {"name": "a loss that is not finite changes nothing", "ok": same}


def compiled_step(settings: Settings) -> Iterator[Finding]:
    """torch.compile's step against the eager one, in float32."""
    yield from attempted("compiled", lambda: _compiled(settings))


def _compiled(settings: Settings) -> Iterator[Finding]:
    config = tiny.CONFIG.without_dropout()
    objective = Objective([LOSSES["hard_label"](loss="hard_label")], TermContext(2, ONE_CLASS, config), Teachers({}))
    prepared = [Step(objective.prepare([tiny.random_batch(rows=8, length=16, seed=seed)]), 1e-3, seed) for seed in range(4)]
    found = []
    for compiled in (False, True):
        engine = load_engine(settings.backend, EngineOptions(settings.device, settings.precision, compiled))
        step = engine.train_step(objective.function, tiny.random_parameters(config), {}, OptimizerSpec("adamw"))
        found.append(step.run(iter(prepared), len(prepared)).fetch()[:, 0])
    yield compared("compiled: the losses of 4 steps", found[1], found[0], LOSS[settings.precision])
