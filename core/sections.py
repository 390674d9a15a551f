"""The sections of a recipe as pydantic models: every key, its type, its default and what must hold between keys. That of the task
is in `task_section`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from .file_section import FileSection
from .lengths import LONGEST
from .losses.catalogue import Term
from .losses.presets import expand
from .models.theseus import SCHEDULES as REPLACEMENT_SCHEDULES
from .plugin_calls import checked_schedule
from .registered import RegisteredOptimizer, RegisteredSchedule
from .schedules import SCHEDULES, SLANTED_RATIO, in_steps, schedule
from .section import Section, absolute
from .shown import shown

MOST_ROWS = 1 << 20
"""Of a batch, whose rows memory holds at once; BERT's largest published batches have 65,536."""


class ReadSection(Section):
    """How a checkpoint is read that does not say everything itself, as the options of `crossdistil convert` of the same names:
    the prefix of its model's names, tensors under other names (`fc.*=classifier.*`), patterns of tensors to leave out, moving
    averages instead of the weights, the successor of BERT-of-Theseus."""

    prefix: str | None = None
    """Where the model's names begin, of a file that holds several models."""
    rename: tuple[str, ...] = ()
    """Tensors that are read under another name."""
    allow_extra: tuple[str, ...] = ()
    """Patterns of tensors that are left out."""
    ema: bool = False
    """Read the moving averages in place of the weights."""
    successor: bool = False
    """Read the successor of a BERT-of-Theseus training."""


class TeacherSection(Section):
    """A fine-tuned model folder, or a file of what a model answered, and its share in the mean of several teachers' logits."""

    newer: ClassVar[tuple[str, ...]] = ("file", "kind")

    model: Path | None = None
    """A model folder, the folder of a finished run, or a checkpoint of any framework."""
    file: FileSection | None = None
    """In place of a model, the file of its answers: a path, or a path with how it is read."""
    kind: Literal["ranking"] | None = None
    """`ranking`: a cross-encoder, which scores pairs, where the student embeds texts; null: what the task asks for."""
    read: ReadSection = ReadSection()
    """How its checkpoint is read."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Its share in the mean of several teachers' logits."""

    @field_validator("model")
    @classmethod
    def _absolute_model(cls, value: Path | None) -> Path | None:
        return None if value is None else absolute(value)

    @field_validator("file", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _one_source(self) -> TeacherSection:
        if (self.model is None) == (self.file is None):
            raise ValueError("give either model or file" + ("" if self.model is None else ", not both"))
        if self.file is not None and self.read != ReadSection():
            raise ValueError("read says how the checkpoint of model is read, but file is given")
        if self.file is not None and self.kind is not None:
            raise ValueError("kind says what a model is, but file is given")
        return self


class CacheSection(Section):
    """Whether the teachers' outputs are kept on disk, so that they are computed once and not in every epoch. `auto` does
    it where it pays: more than one epoch, and room on the disk."""

    newer: ClassVar[tuple[str, ...]] = ("top_k",)

    use: Literal["auto", "always", "never"] = "auto"
    """`auto`: where it pays; `always`, `never`."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """What the outputs are stored in."""
    folder: Path | None = None
    """Where; the user's cache folder unless given."""
    computed_in: Literal["fp32", "bf16", "fp16"] | None = None
    """What the teachers computed in, where that may differ from what the run computes in; such a cache is only read."""
    top_k: int | None = Field(None, ge=1)
    """How many of the largest logits are kept, of a teacher of many classes, with what the others come to together; null: all."""

    @model_validator(mode="after")
    def _always_the_same_logits(self) -> CacheSection:
        if self.top_k is not None and self.use != "always":
            raise ValueError(f"top_k is for use: always, got {self.use}: a teacher that runs in every step gives all its logits")
        return self

    @field_validator("folder")
    @classmethod
    def _absolute_folder(cls, value: Path | None) -> Path | None:
        return None if value is None else absolute(value)


AFRESH = "--set 'student.init={from: random}'"
"""What makes a student's weights new ones, whatever `student.init` a recipe has."""


class InitSection(Section):
    """Where the student's weights start: `teacher`, `random`, or a model folder; `layers` lists the source's layers that
    become the student's, counted from 0; `vocabulary` says which of its words do."""

    newer: ClassVar[tuple[str, ...]] = ("vocabulary",)

    source: str = Field("random", alias="from")
    """`teacher`, `random`, or a model folder or checkpoint."""
    layers: tuple[int, ...] | None = None
    """Which layers of the source, counted from 0, become the student's; needed where it has fewer of them."""
    vocabulary: Literal["whole", "trimmed"] = "whole"
    """`whole`: all words of its tokenizer; `trimmed`: those that the task's texts have, and single characters. The teacher keeps
    its own."""
    read: ReadSection = ReadSection()
    """How the source's checkpoint is read."""

    @field_validator("source")
    @classmethod
    def _absolute_source(cls, value: str) -> str:
        return value if value in ("teacher", "random") else str(absolute(Path(value)))

    @model_validator(mode="after")
    def _layers_have_a_source(self) -> InitSection:
        if self.layers is not None and self.source == "random":
            raise ValueError(f"layers are given, but from is 'random': there are none to take; {AFRESH} leaves them out")
        if self.read != ReadSection() and self.source in ("random", "teacher"):
            raise ValueError(f"read is given, but from is '{self.source}', which is no checkpoint")
        return self


class WordsSection(Section):
    """The words of a BiLSTM student, which are taken from the training texts."""

    vocabulary: int = Field(10000, ge=4, le=1 << 24)
    """How many words of the training texts have an embedding, the most frequent ones."""
    max_length: int = Field(32, ge=1, le=LONGEST)
    """In words, of each text."""
    vectors: Path | None = None
    """A file of word vectors (GloVe, word2vec as text) that the embeddings start from."""

    @field_validator("vectors")
    @classmethod
    def _absolute_vectors(cls, value: Path | None) -> Path | None:
        return None if value is None else absolute(value)


class StudentSection(Section):
    """The model that is trained. `architecture` overrides single keys of the configuration of the weights it starts from,
    or of the teacher's where they are random, or of BERT-base where there is no teacher. With `model_type: bilstm` it is
    a BiLSTM over `words`."""

    architecture: dict[str, Any] = {}
    """Keys of the model's configuration, for example `num_hidden_layers: 4`."""
    init: InitSection = InitSection()
    """Where its first weights are from."""
    tokenizer: Path | None = None
    """A folder with tokenizer files; that of the first weights, or the teacher's, where not given."""
    words: WordsSection | None = None
    """The words of a BiLSTM."""

    @property
    def is_bilstm(self) -> bool:
        """Whether the student is a BiLSTM."""
        return self.architecture.get("model_type") == "bilstm"

    @model_validator(mode="after")
    def _words_of_a_bilstm(self) -> StudentSection:
        if self.words is not None and not self.is_bilstm:
            raise ValueError("words is for a student with architecture.model_type 'bilstm'")
        if self.init.vocabulary == "trimmed" and "vocab_size" in self.architecture:
            raise ValueError("architecture.vocab_size is given, but with init.vocabulary: trimmed the texts decide it")
        if self.is_bilstm and (self.tokenizer is not None or self.init.source == "teacher"):
            raise ValueError("a BiLSTM has words of its own: neither tokenizer nor init.from: teacher fits it")
        return self

    @field_validator("tokenizer")
    @classmethod
    def _absolute_tokenizer(cls, value: Path | None) -> Path | None:
        return None if value is None else absolute(value)


OPTIMIZERS = ("adamw", "bert_adam", "adadelta")


class TrainSection(Section):
    """One stage's training. Give `epochs` or `steps`."""

    newer: ClassVar[tuple[str, ...]] = ("patience", "min_improvement", "keep_states")

    own_schedules: ClassVar[Mapping[str, RegisteredSchedule]] = {}
    own_optimizers: ClassVar[Mapping[str, RegisteredOptimizer]] = {}
    """Those of the recipe's plugins."""

    epochs: float | None = Field(None, gt=0, le=10**6, allow_inf_nan=False)
    """Passes over the training data, which need not be whole."""
    steps: int | None = Field(None, ge=1, le=10**9)
    """Optimizer steps, in place of epochs."""
    batch_size: int = Field(32, ge=1)
    """Examples of an optimizer step, on all devices together."""
    gradient_accumulation: int = Field(1, ge=1)
    """In how many parts a step's examples go through the model; it changes no value."""
    optimizer: Literal[OPTIMIZERS] = "adamw"  # type: ignore[valid-type]
    """`core.optimizers` has the formulas. Adadelta's rho is `beta2` (published: 0.95), its learning rate near 1."""
    learning_rate: float = Field(5e-5, gt=0, allow_inf_nan=False)
    """The peak of the schedule."""
    schedule: Literal[SCHEDULES] = "linear"  # type: ignore[valid-type]
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.1, ge=0, allow_inf_nan=False)
    """Below 1 a share of the stage's steps, from 1 on a number of steps, in which the learning rate rises."""
    slanted_ratio: float = Field(SLANTED_RATIO, ge=1, allow_inf_nan=False)
    """The peak over the lowest rate of `slanted_triangular`."""
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    """Decoupled from the gradient; biases and the parameters of layer normalisation have none."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Of the second moment."""
    epsilon: float = Field(1e-6, gt=0)
    """What is added to the root of the second moment."""
    max_gradient_norm: float | None = Field(1.0, gt=0)
    """Gradients together are scaled down to this norm; null: never."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Rate of all dropouts of the student; null: those of its configuration."""
    length_buckets: tuple[int, ...] | None = None
    """Lengths in tokens to which batches are padded; the engine's own where not given."""
    log_every: int = Field(50, ge=1)
    """Optimizer steps between two lines of the log."""
    evaluate_every: int | None = Field(None, ge=1)
    """Optimizer steps between two evaluations on dev; null: after each epoch."""
    save_every: int = Field(500, ge=1)
    """Optimizer steps between two saved states, which an interrupted run goes on from."""
    keep: Literal["best", "last"] = "best"
    """Which weights the student has at the end: those of the best evaluation, or the last."""
    clip_scope: Literal["trained", "all"] = "trained"
    """Whose gradients count in the norm: of what is trained, or also of what is frozen (BERT-of-Theseus's code)."""
    patience: int | None = Field(None, ge=1)
    """Evaluations in a row without an improvement of the first metric after which the stage ends; null: it goes on to its end.
    The learning rate follows the whole plan all the same."""
    min_improvement: float = Field(0.0, ge=0, allow_inf_nan=False)
    """By how much the first metric must be better than the last time it improved, to count for `patience`; in its own unit,
    accuracy as a fraction."""
    keep_states: Literal["all"] | Annotated[int, Field(ge=1)] | None = None
    """Of which epochs the student is kept, as model folders in the run's `checkpoints`: all, or this many of the last ones."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps" + (", not both" if self.steps else ""))
        if self.min_improvement and self.patience is None:
            raise ValueError("min_improvement is for patience, which is not given")
        if self.slanted_ratio != SLANTED_RATIO and self.schedule != "slanted_triangular":
            raise ValueError(f"slanted_ratio is for the schedule 'slanted_triangular', not '{self.schedule}'")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of gradient_accumulation {self.gradient_accumulation}"
            )
        if self.length_buckets is not None and min(self.length_buckets, default=0) < 1:
            raise ValueError("length_buckets needs at least one length, all of them positive")
        return self

    @field_validator("keep_states", mode="before")
    @classmethod
    def _all_or_some(cls, value: Any) -> Any:
        if value in (None, "all") or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise ValueError(f"got {shown(value)}, expected all or a number of epochs from 1 on")

    @field_validator("batch_size", "gradient_accumulation")
    @classmethod
    def _fits_in_memory(cls, value: int) -> int:
        if value > MOST_ROWS:
            raise ValueError(f"got {shown(value)}, expected at most {MOST_ROWS:,}: memory holds the rows of a batch at once")
        return value

    def total_steps(self, steps_per_epoch: int) -> int:
        """The optimizer steps of the stage."""
        return self.steps if self.steps is not None else max(1, math.ceil(self.epochs * steps_per_epoch))

    def factor(self, total: int) -> Callable[[int], float]:
        """Step -> its learning rate over the peak's, in a stage of `total` steps."""
        own = self.own_schedules.get(self.schedule)
        decay = None if own is None else checked_schedule(own)
        return schedule(self.schedule, total, in_steps(self.warmup, total), self.slanted_ratio, decay)


class ReplacementSection(Section):
    """BERT-of-Theseus: encoder layers of the student stand in for modules of the teacher at random, all of them
    for good from `until` on. Before, `constant`: with probability `rate`; `linear`: with one that rises from there to 1."""

    schedule: Literal[REPLACEMENT_SCHEDULES] = "linear"  # type: ignore[valid-type]
    """How the probability of a replacement goes on."""
    rate: float = Field(0.3, ge=0, le=1)
    """The probability, or where it begins."""
    until: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Below 1 a share of the stage's steps, from 1 on a number of steps; None: the stage's end."""


PARTS = ("embeddings", "encoder", "pooler", "classifier", "words")
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


class StageSection(Section):
    """A weighted sum of loss terms and a training schedule."""

    name: str = Field(min_length=1, pattern=r"^[\w-]+$")
    """Of the stage, in logs and reports."""
    objective: tuple[Term, ...] = Field(min_length=1)
    """The terms whose weighted sum is minimised, or names of TextBrewer's matches."""
    freeze: tuple[Literal[PARTS + TABLES], ...] = ()  # type: ignore[valid-type]
    """Parts of the student, or single tables of its embeddings, that this stage leaves as they are. `words` is the head that
    predicts words; the table it predicts with is that of the embeddings."""
    replacement: ReplacementSection | None = None
    """BERT-of-Theseus: modules of the teacher are replaced by the student's."""
    train: TrainSection
    """How it is trained."""

    @field_validator("objective", mode="before")
    @classmethod
    def _expand_presets(cls, value: Any) -> Any:
        """`- L4t_hidden_mse` stands for the terms of TextBrewer's preset of that name."""
        if not isinstance(value, list):
            return value
        terms: list[Any] = []
        for item in value:
            terms += expand(item) if isinstance(item, str) else [item]
        return terms

    @field_validator("objective")
    @classmethod
    def _something_to_minimise(cls, value: tuple[Term, ...]) -> tuple[Term, ...]:
        if not any(term.weight for term in value):
            raise ValueError("every weight is 0: there is nothing to minimise")
        return value


class NotesSection(Section):
    """What is known about a method, for people; it changes nothing in a run."""

    paper: str = ""
    """Where the method is from."""
    published: str = ""
    """The paper's number and its conditions."""
    measured: str = ""
    """Ours."""
