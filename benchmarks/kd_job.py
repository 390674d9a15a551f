"""The work that the speed benchmarks measure: a student of every second layer of its teacher learns from the teacher's
softened answers and the labels, with dropout, AdamW, clipping and a linear schedule, as in `recipes/kd.yaml`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.data.batches import TrainBatches, length_buckets
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.data.token_table import TokenTable
from crossdistil.core.data.tokenize import load_tokenizer, tokenized
from crossdistil.core.engine import Batch, Step
from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.hard_label import HardLabel
from crossdistil.core.losses.logits import KnowledgeDistillationCrossEntropy
from crossdistil.core.model_sections import StudentSection
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.schedules import schedule
from crossdistil.core.student import build_student
from crossdistil.core.task_section import TaskSection

TEACHER = "teacher"
TEMPERATURE, WEIGHT, LEARNING_RATE, SCHEDULED_STEPS = 4.0, 0.5, 1e-4, 3159
OPTIMIZER = OptimizerSpec("adamw")


@dataclass
class KdJob:
    """Teacher, student and batches, all as host arrays."""

    teacher: Model
    student: Model
    objective: Objective
    batches: TrainBatches

    @property
    def frozen(self) -> dict[str, np.ndarray]:
        """The teacher's tensors under the names that the objective reads."""
        return {f"{TEACHER}/{name}": array for name, array in self.teacher.parameters.items()}

    def steps(self, epoch: int) -> Iterator[Step]:
        """The product's way from tokens to the steps of an epoch."""
        factor = schedule("linear", SCHEDULED_STEPS, 0)
        for number, micro_batches in enumerate(self.batches.epoch(epoch)):
            yield Step(self.objective.prepare(micro_batches, number, SCHEDULED_STEPS), LEARNING_RATE * factor(number), number)


class PrecomputedJob(KdJob):
    """A job whose teacher answered before: its logits come with each batch, as from a teacher cache."""

    def __init__(self, job: KdJob, infer: Callable[[Batch], np.ndarray]):
        super().__init__(job.teacher, job.student, job.objective.from_cache(), job.batches.with_arrays(self._known))
        self._job, self._infer = job, infer
        self._logits: dict[int, np.ndarray] = {-1: np.zeros(job.teacher.outputs, np.float32)}

    @property
    def frozen(self) -> dict[str, np.ndarray]:
        """Nothing: no teacher is run."""
        return {}

    def compute(self, epoch: int, count: int) -> None:
        """Ask the teacher for the rows of the first `count` steps of an epoch."""
        rows: list[np.ndarray] = []

        def noted(chosen: np.ndarray, length: int) -> Batch:
            rows.append(chosen)
            return {}

        for (batch,) in islice(self._job.batches.with_arrays(noted).epoch(epoch), count):
            self._logits |= {int(row): each for row, each in zip(rows[-1], self._infer(batch)) if row >= 0}

    def _known(self, rows: np.ndarray, length: int) -> Batch:
        return {f"{TEACHER}/logits": np.stack([self._logits[int(row)] for row in rows])}


def kd_job(
    model_folder: Path,
    data: Path,
    task: str,
    batch_size: int,
    max_length: int,
    length_step: int | None = 1,
    buckets: tuple[int, ...] | None = None,
    seed: int = 42,
    columns: Mapping[str, str] | None = None,
    shape: tuple[int, int] | None = None,
) -> KdJob:
    """Read and tokenize; the teacher gets a random head where the folder has none, which costs the same time. A task of one's own
    names its `columns`, as the keys of a recipe's task do. With a `shape`, layers and width, the teacher is a BERT of random
    weights with the folder's tokenizer."""
    section = TaskSection(name=task, data=data, max_length=max_length, **columns or {})
    spec = resolve_task(section)
    if spec.labels is None:
        raise SystemExit(f"{task}: a regression; these benchmarks measure classification")
    model = load_model(model_folder)
    if shape is not None:
        layers, width = shape
        sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": width // 64}
        config = BertConfig(vocab_size=model.config.vocab_size, intermediate_size=4 * width, **sizes)
        model = Model(config, {}, None, None)
    teacher = _with_head(model, len(spec.labels), spec.label_names, seed)
    examples = read_split(spec, data, "train")
    tokens = tokenized(examples, load_tokenizer(model_folder), max_length)
    lengths = length_buckets(max_length, length_step, buckets)
    return job_of(teacher, spec.label_names, tokens, examples.labels, batch_size, lengths, seed)


def job_of(
    teacher: Model,
    label_names: tuple[str, ...] | None,
    tokens: TokenTable,
    labels: np.ndarray,
    batch_size: int,
    lengths: Sequence[int],
    seed: int = 42,
) -> KdJob:
    """The job of a teacher and of tokens that are there already; `lengths` are what batches are padded to."""
    layers = list(range(0, teacher.config.num_hidden_layers, 2))
    described = {"architecture": {"num_hidden_layers": len(layers)}, "init": {"from": "teacher", "layers": layers}}
    student, problems = build_student(StudentSection.model_validate(described), teacher, teacher.outputs, label_names, seed)
    if student is None or problems:
        raise SystemExit("\n".join(problems))
    terms = [
        KnowledgeDistillationCrossEntropy(loss="kd_ce", weight=WEIGHT, temperature=TEMPERATURE),
        HardLabel(loss="hard_label", weight=WEIGHT),
    ]
    context = TermContext(teacher.outputs, ONE_CLASS, student.config, {TEACHER: teacher.config})
    objective = Objective(terms, context, Teachers({TEACHER: 1.0}))
    return KdJob(teacher, student, objective, TrainBatches(tokens, labels, batch_size, 1, lengths, seed))


def _with_head(model: Model, outputs: int, labels: tuple[str, ...] | None, seed: int) -> Model:
    if model.parameters and not model.new and model.outputs == outputs:
        return model
    parameters = {
        name: model.parameters[name]
        if name in model.parameters and not name.startswith("classifier.")
        else model.config.new_tensor(name, shape, seed)
        for name, shape in tensor_shapes(model.config, outputs).items()
    }
    return dataclasses.replace(model, parameters=parameters, outputs=outputs, labels=labels, new=())
