"""The sections of a recipe that say of which models it is: teachers and what is kept of them, the student and where its weights
start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from .file_section import FileSection
from .lengths import LONGEST
from .read_section import ReadSection
from .section import Section, absolute


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
