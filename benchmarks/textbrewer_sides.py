"""The two sides of `textbrewer_job.py`: the same job, as the users of each package run it.

Both start from the same teacher, student weights and tokens, and use the same optimizer (AdamW), clipping and schedule. A
side's `run(turn)` does the whole job and calls `turn(name)` whenever a part of it is done; what is between two calls is timed.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossdistil.backends.registry import load_engine
from crossdistil.core.app.progress import make_console
from crossdistil.core.app.teaching import Teaching
from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.engine import EngineOptions, Parameters
from crossdistil.core.events import Logged, Sink, Sinks
from crossdistil.core.job import Job, prepare
from crossdistil.core.metric_lines import MetricLines
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.recipe import Recipe, load_recipe
from crossdistil.core.runs import RunFolder
from crossdistil.core.training import Trainer

SEED, LABELS = 42, 3
LAYERS = [[0, 0], [3, 1], [6, 2], [9, 3], [12, 4]]
TEMPERATURE, LEARNING_RATE, WEIGHT_DECAY, EPSILON, WARMUP = 8, 1e-4, 0.01, 1e-6, 0.1

Turn = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """The job; the same for both sides."""

    work: Path
    """Holds `teacher` and `data`, and takes what the sides write."""
    text: str
    text_pair: str
    label: str
    batch_size: int
    max_length: int
    epochs: int


def write_data(source: Path, folder: Path, rows: int | None) -> int:
    """The task's files in `folder`, with `rows` of the training rows drawn at random; returns how many those are."""
    folder.mkdir(parents=True)
    header, *lines = (source / "train.tsv").read_text(encoding="utf-8").splitlines()
    if rows is not None:
        chosen = np.random.default_rng(SEED).permutation(len(lines))[:rows]
        lines = [lines[index] for index in sorted(chosen)]
    (folder / "train.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    (folder / "dev.tsv").write_bytes((source / "dev.tsv").read_bytes())
    return len(lines)


def write_teacher(vocabulary: Path, data: Path, label: str, folder: Path) -> None:
    """A BERT of BERT-base's size with random weights, which cost the same time as trained ones."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_bytes(vocabulary.read_bytes())
    tokenizer = load_tokenizer(folder)
    config = BertConfig(vocab_size=tokenizer.vocab_size)
    tensors = {
        name: config.new_tensor(name, shape, SEED)
        for name, shape in tensor_shapes(config, LABELS).items()
    }
    with (data / "train.tsv").open(encoding="utf-8") as file:
        labels = sorted({row[label] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)})
    if len(labels) != LABELS:
        raise SystemExit(f"{data}: {len(labels)} labels ({', '.join(labels)}) in these rows, expected {LABELS}; take more --rows")
    save_model(Model(config, tensors, LABELS, tuple(labels)), folder, tokenizer)


def recipe_of(settings: Settings, more: tuple[str, ...] = ()) -> Recipe:
    """`recipes/t4tiny.yaml` for this job."""
    overrides = [
        "task.name=reviews",
        f"task.data={settings.work / 'data'}",
        f"task.text={settings.text}",
        f"task.text_pair={settings.text_pair}",
        f"task.label={settings.label}",
        f"task.max_length={settings.max_length}",
        f"teacher.model={settings.work / 'teacher'}",
        f"stages.0.objective.0.temperature={TEMPERATURE}",
        f"stages.0.objective.2={{loss: mmd, layers: {LAYERS}, divide_by: length}}",
        f"stages.0.train.epochs={settings.epochs}",
        f"stages.0.train.batch_size={settings.batch_size}",
        f"stages.0.train.learning_rate={LEARNING_RATE}",
        f"stages.0.train.weight_decay={WEIGHT_DECAY}",
        f"stages.0.train.epsilon={EPSILON}",
        f"stages.0.train.warmup={WARMUP}",
        "stages.0.train.schedule=linear",
        "stages.0.train.optimizer=adamw",
        f"seed={SEED}",
    ]
    return load_recipe("t4tiny", [*overrides, *more])


class Crossdistil:
    """The product: the recipe, the teacher cache, batches of similar length, the training loop."""

    def __init__(self, settings: Settings, name: str, cache: str, precision: str, more: tuple[str, ...] = ()):
        self._folder = settings.work / name
        cached = (f"teacher_cache.use={cache}", f"teacher_cache.folder={self._folder / 'cache'}")
        self.recipe = recipe_of(settings, (*cached, *more))
        self.engine = load_engine("torch", EngineOptions("cpu", precision))
        self.job: Job = prepare(self.recipe, name, self.engine.length_step)
        self.stage = None

    def teach(self) -> Parameters:
        """Write the teacher cache, if it is used; returns the first weights."""
        self.stage = Teaching(self.job, self.engine, make_console(quiet=True)).stage(0, False)
        first = dict(self.job.student.parameters)
        return first | self.stage.new_projections(first, self.recipe.seed)

    def train_step(self, parameters: Parameters):
        """The engine's step for the stage, as a run makes it."""
        frozen = Teaching(self.job, self.engine, make_console(quiet=True)).frozen(self.stage)
        objective, optimizer = self.stage.objective, self.stage.optimizer(parameters)
        return self.engine.train_step(objective.function, parameters, frozen, optimizer, objective.statistics)

    def run(self, turn: Turn) -> None:
        """The whole job; the run folder and its saved state are part of it."""
        parameters = self.teach()
        turn("teacher cache")
        identity = {"backend": "torch", "device": "cpu", "precision": self.engine.precision}
        folder = RunFolder(self._folder / "run", self.recipe, identity, False)
        step, seed = self.train_step(parameters), self.recipe.seed
        tell = Sinks([MetricLines(folder.append, folder.append_watched), _EpochEnds(turn)])
        Trainer(self.stage, seed, 0, parameters, step, None, folder, tell).run()
        folder.close()
        turn("end")


class _EpochEnds(Sink):
    """Told once an epoch, since the recipe logs as often."""

    def __init__(self, turn: Turn):
        self._turn = turn

    def logged(self, event: Logged) -> None:
        self._turn("epoch")


def bert_module(model: Model, dropout: float | None = None):
    """transformers' model with these weights; it is in training mode, as a constructed module is."""
    import torch
    from transformers import BertConfig as Config
    from transformers import BertForSequenceClassification

    config = Config(**model.config.model_dump(), num_labels=model.outputs, output_hidden_states=True)
    if dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    module = BertForSequenceClassification(config)
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in model.parameters.items()})
    return module.train()


def padded_examples(job: Job, length: int) -> list[dict]:
    """Every training row padded to `length`, as TextBrewer's examples keep them."""
    import torch

    table, rows = job.data.tokens["train"], []
    for start, end, first in zip(table.offsets[:-1], table.offsets[1:], table.first_lengths):
        arrays = {name: np.zeros(length, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        arrays["input_ids"][: end - start] = table.ids[start:end]
        arrays["attention_mask"][: end - start] = 1
        arrays["token_type_ids"][first : end - start] = 1
        rows.append({name: torch.from_numpy(array) for name, array in arrays.items()})
    return rows


def adaptor(batch: dict, outputs) -> dict:
    """What TextBrewer is told of a model: logits, the hidden states of all layers, the mask."""
    return {"logits": outputs.logits, "hidden": outputs.hidden_states, "inputs_mask": batch["attention_mask"]}


class TextBrewer:
    """TextBrewer's documented loop over transformers' models: GeneralDistiller, its matches, AdamW, linear schedule."""

    def __init__(self, settings: Settings, student_dropout: float | None = None, teacher_dropout: float | None = None):
        import textbrewer

        logging.getLogger("Distillation").setLevel(logging.WARNING)
        self._settings = settings
        self.job = prepare(recipe_of(settings), "textbrewer", 1)
        self.teacher = bert_module(self.job.teachers["teacher"], teacher_dropout)
        self.student = bert_module(self.job.student, student_dropout)
        widths = [self.student.config.hidden_size, self.teacher.config.hidden_size]
        matches = []
        for teacher, student in LAYERS:  # L4t_hidden_mse
            sides = {"layer_T": teacher, "layer_S": student, "feature": "hidden"}
            matches.append({**sides, "loss": "hidden_mse", "weight": 1, "proj": ["linear", *widths]})
        for teacher, student in LAYERS:  # L4_hidden_smmd
            sides = {"layer_T": [teacher, teacher], "layer_S": [student, student], "feature": "hidden"}
            matches.append({**sides, "loss": "mmd", "weight": 1})
        output = settings.work / "textbrewer"
        output.mkdir(exist_ok=True)
        self.distiller = textbrewer.GeneralDistiller(
            textbrewer.TrainingConfig(device="cpu", output_dir=str(output)),
            textbrewer.DistillationConfig(temperature=TEMPERATURE, intermediate_matches=matches),
            self.teacher,
            self.student,
            adaptor,
            adaptor,
        )

    def optimizer(self):
        """AdamW without decay of biases and normalisations; the fused kernel, so that nothing is held back."""
        import torch

        named = list(self.student.named_parameters())
        exempt = [parameter for name, parameter in named if name.endswith("bias") or "LayerNorm" in name]
        decayed = [parameter for name, parameter in named if not (name.endswith("bias") or "LayerNorm" in name)]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": exempt, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=LEARNING_RATE, eps=EPSILON, fused=True, weight_decay=WEIGHT_DECAY)

    def train(self, batches, epochs: int, max_gradient_norm: float, callback=None) -> None:
        """Its training call; `batches` is anything that it can iterate over each epoch."""
        from transformers import get_linear_schedule_with_warmup

        total = len(batches) * epochs
        self.distiller.train(
            self.optimizer(),
            batches,
            num_epochs=epochs,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": int(round(WARMUP * total)), "num_training_steps": total},
            max_grad_norm=max_gradient_norm,
            callback=callback,
        )

    def run(self, turn: Turn) -> None:
        """The whole job, with a saved student after each epoch, as the package does by default."""
        import torch

        torch.manual_seed(SEED)
        rows = padded_examples(self.job, self._settings.max_length)
        loader = torch.utils.data.DataLoader(rows, batch_size=self._settings.batch_size, shuffle=True)
        turn("start")
        with self.distiller:
            self.train(loader, self._settings.epochs, 1.0, lambda model, step: turn("epoch"))
        turn("end")
