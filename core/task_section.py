"""The `task` section of a recipe: which data, and how its tables are read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model, field_validator, model_validator

from .data.embedding_format import MEMBERS
from .data.masking import MaskingSettings
from .data.ranking_format import CANDIDATES
from .data.text_files import is_encoding
from .hub_names import hub_folder
from .kinds.known_kinds import KINDS, kind_named
from .lengths import LONGEST
from .models.pooling import MODES
from .section import Section, absolute
from .shown import shown

_WITHOUT_CLASSES = ("embeddings", "ranking")
"""Kinds without classes that have a section of their own."""
_OF_TABLES = {"tokens": ("text_pair", "header", "separator", "quoting", "bad_rows", "skip_labels")}
_OF_TABLES["question_answering"] = (*_OF_TABLES["tokens"][1:], "encoding", "columns", "labels")
"""Kind -> the keys that are for tables alone."""


def label_text(value: Any) -> Any:
    """A value of YAML as a JSON file has it in its text; what holds others is none, and is left as it is."""
    return value if isinstance(value, list | dict) else "null" if value is None else str(value)


class TokensSection(Section):
    """Words with labels."""

    scheme: Literal["auto", "plain"] = "auto"
    """`auto`: labels are tags of spans, in BIO, IOB1, BIOES, BILOU or BMES, whichever the file has. `plain`: labels are what
    they are, as parts of speech."""
    pieces: Literal["first", "all"] = "first"
    """Where the label of a word of several pieces is learned: at its first piece, as BERT does, or at all of them."""
    overlap: int | None = Field(None, ge=0, le=LONGEST)
    """Tokens that two windows of a text have in common which is longer than `max_length`, at most half of a window's; null: 32,
    or that half where it is less."""
    stray: Literal["error", "begin"] = "error"
    """A tag that goes on with nothing, as an I behind an O: an error, or the beginning of a span, which is counted and told."""
    constrained: bool = False
    """Score the most probable tags that are legal in BIO, instead of the most probable tag of each word."""

    @field_validator("scheme", mode="before")
    @classmethod
    def _scheme_is_found(cls, value: Any) -> Any:
        if isinstance(value, str) and value.upper() in ("BIO", "IOB", "IOB1", "IOB2", "BIO2", "BIOES", "IOBES", "BILOU", "BMES"):
            found = "which finds out whether a file is in BIO, IOB1, BIOES, BILOU or BMES"
            raise ValueError(f"got {shown(value)}, expected auto, {found}, or plain, for labels that are no spans")
        return value


class AnswersSection(Section):
    """Questions whose answers are parts of a text."""

    stride: int = Field(128, ge=1, le=LONGEST)
    """Tokens from the beginning of a window of a long context to that of the next one, as `doc_stride` of Google's `run_squad`;
    never more than a window holds."""
    question_length: int = Field(64, ge=1, le=LONGEST)
    """Tokens of a question; the rest of a longer one is left out."""
    answer_length: int = Field(30, ge=1, le=LONGEST)
    """The most tokens of an answer that is given."""
    unanswerable: bool = False
    """Whether questions may have no answer in their context, as in SQuAD 2.0."""
    null_threshold: float = Field(0.0, allow_inf_nan=False)
    """How much the score of "no answer" must be above that of the best answer to be the answer, where that may be."""
    scores: Literal["auto", "squad", "cmrc"] = "auto"
    """Exact match and F1 by words, as SQuAD's scripts count them, or by Chinese characters, as CMRC 2018's does; `auto`: by
    characters where most answers have Chinese ones."""
    misplaced: Literal["error", "nearest"] = "error"
    """An answer that is not where its file says: an error, or taken at the nearest place where the context has it; what it does
    not have is left out, and counted."""


class EmbeddingsSection(Section):
    """Sentence embeddings."""

    newer: ClassVar[tuple[str, ...]] = ("teacher_scores", "scored_on")

    examples: Literal[tuple(MEMBERS)] = "scored"  # type: ignore[valid-type]
    """What a training example is: `scored`, a pair with a number that says how alike its texts are; `pairs`, which belong
    together; `triplets`, of which the third text belongs less to the first than the second; or `texts` alone, for what only a
    teacher teaches. Dev and test have pairs with a score."""
    negative: str | None = None
    """The column of a triplet's third text."""
    scores: tuple[float, float] | None = None
    """From where to where the scores are, which become 0 to 1; null: 0 to 1, and of STS-B 0 to 5."""
    teacher_scores: str | tuple[str, str] | None = None
    """The columns of another model's scores, as a reranker's, of a triplet's first text with the second one and with the third;
    or one column of the first score less the other."""
    scored_on: Literal["pairs", "retrieval"] = "pairs"
    """What dev and test are: `pairs` with a score, or, for `retrieval`, queries with candidates (docs/rerankers.md), of which
    each query is to find its own among those of all."""
    pooling: Literal[MODES] | None = None  # type: ignore[valid-type]
    """What the student makes of its tokens' states: their `mean`, the first (`cls`) or the `last`; null: as the model that it
    starts from, else as the teacher, else the mean."""
    normalise: bool | None = None
    """Whether its vectors are scaled to length 1; null: likewise, else not."""
    teacher_pooling: Literal[MODES] | None = None  # type: ignore[valid-type]
    """How a teacher pools whose folder does not say it (modules.json of sentence-transformers); its vectors keep their length."""

    @field_validator("scores")
    @classmethod
    def _range(cls, value: Any) -> Any:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"got {value[0]:g} to {value[1]:g}, expected the lowest and then the highest score")
        return value


KIND_NAMES = (
    *("classification", "regression", "multi_label", "tokens", "question_answering", "embeddings", "ranking"),
    *("text", "mlm", "clm"),
)
"""What `kind` can be without plugins."""


class RankingSection(Section):
    """Lists of candidates."""

    candidates: int = Field(CANDIDATES, ge=2, le=1024)
    """How many candidates of a query a training example has at most: of a longer list the first of the most relevant is kept, and
    of the others those that come first. A shorter one is filled with rows that cost time and count nothing."""
    positive: str | None = None
    """The column of relevant texts, where they are not named positive, positives or pos."""
    negative: str | None = None
    """The column of the others, where they are not named negative, negatives or neg; `negative_1` and on come with it."""
    teacher_score: str | tuple[str, str] | None = None
    """The column of train with a teacher's scores, a number or a list of them for each candidate; `[of positives, of negatives]`
    where these have columns of their own."""


class TaskSection(Section):
    """Which data. GLUE names know their files and columns; any other name needs `text` and `label`. With `kind:
    multi_label` an example has any number of labels: `a|b` in the file, or a list in JSON lines. With `kind: tokens` each word
    has a label: columns, tables with lists of words and of labels, or JSON lines with spans (docs/token_labels.md). With `kind:
    question_answering` the answer to a question is a part of its context: SQuAD's or CMRC's JSON, or JSON lines
    (docs/answers.md). With `kind: embeddings` a
    text becomes a vector (docs/embeddings.md). With `kind: ranking` a query has candidates, which are put in an order
    (docs/rerankers.md). `kind: text` is raw text
    without labels: `data` is a .txt or .tfrecord file, a folder of them, or the folder of its token store, which `crossdistil
    data tokens` wrote. `kind: mlm` is raw text whose tokens are masked, anew in every epoch as `masking` says, or as the
    records of `crossdistil data mlm` have them, where it is not given. `kind: clm` is raw text of which a causal language model
    guesses each next token. For both of them `data` may also be a binarized_text pickle of DistilBERT's scripts, and
    `files: {dev: name}` is text to score on. In other kinds `data` may be a folder of records that `crossdistil data export` or
    `data import` wrote, which says itself what its columns and labels are.

    Tables are .tsv (quotation marks are text, as in GLUE's), .csv, .jsonl and .json (an object a line, or an array), .parquet,
    .arrow, .feather, or folders that `datasets` saved. `data` may also be `hf:OWNER/NAME`, a dataset of the Hugging Face hub."""

    newer: ClassVar[tuple[str, ...]] = (
        *("header", "columns", "encoding", "separator", "quoting", "bad_rows", "skip_labels", "limit", "tokens"),
        *("answers", "embeddings", "ranking"),
    )

    name: str
    """A task of GLUE (`sst-2`, `mnli`, ...), whose files and columns are known, or any other name."""
    data: Path
    """The folder of train, dev and test, or what `kind` says."""
    max_length: int = Field(128, ge=4, le=LONGEST)
    """Tokens of an example, special tokens counted; longer texts are cut."""
    kind: Literal[KIND_NAMES] | None = None  # type: ignore[valid-type]
    """What an example's answer is; of GLUE's tasks known, else classes. Plugins may bring others."""
    text: str | None = None
    """The column of the text."""
    text_pair: str | None = None
    """The column of the second text, where an example is a pair."""
    label: str | None = None
    """The column of the label."""
    labels: tuple[str, ...] | None = None
    """The classes in the order of the outputs; those in train, sorted, where they are not given."""
    files: dict[str, str] = {}
    """Split (`train`, `dev`, `test`) -> name of its file, where that is not the split's own."""
    metrics: tuple[str, ...] | None = None
    """What is computed on dev, the first of them deciding which weights are the best; those of the task or its kind where
    not given."""
    tokens: TokensSection | None = None
    """How words with labels are read and scored, of `kind: tokens`."""
    answers: AnswersSection | None = None
    """How questions and answers are read and scored, of `kind: question_answering`."""
    embeddings: EmbeddingsSection | None = None
    """What examples and vectors are, of `kind: embeddings`."""
    ranking: RankingSection | None = None
    """What lists of candidates are, of `kind: ranking`."""
    masking: MaskingSettings | None = None
    """How tokens are masked, of `kind: mlm`."""
    header: bool | None = None
    """Whether tables begin with a line of column names; with `false`, `columns` names all of them in their order."""
    columns: tuple[str, ...] | None = Field(None, min_length=1)
    """The names of the columns, of tables without a header."""
    encoding: str | None = None
    """Of the tables, where it is not UTF-8: gb18030, big5, cp1252, ... A byte-order mark is obeyed without it."""
    separator: str | None = Field(None, min_length=1, max_length=1)
    """Between the columns of .tsv and .csv files."""
    quoting: Literal["csv", "none"] | None = None
    """Whether cells of .tsv and .csv files may be in quotation marks, as CSV has them."""
    bad_rows: Literal["error", "skip"] | None = None
    """Rows that cannot be read: an error, or left out and counted, as by default in GLUE's own files."""
    skip_labels: tuple[str, ...] = ()
    """Rows with these labels are left out and counted."""
    limit: Annotated[int, Field(ge=1)] | dict[Literal["train", "dev"], Annotated[int, Field(ge=1)]] | None = None
    """Use only so many examples of train and of dev, or `{train: N, dev: N}`: drawn at random, the same for every seed."""

    @field_validator("limit", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        for place, number in value.items() if isinstance(value, dict) else [("", value)]:
            fits = number is None or (isinstance(number, int) and not isinstance(number, bool) and number >= 1)
            if place not in ("", "train", "dev") or not fits:
                raise ValueError(f"got {shown(value)}, expected a number from 1 on, or one for each of train and dev")
        return value

    @model_validator(mode="after")
    def _columns_without_header(self) -> TaskSection:
        if self.columns is not None and self.header is not False and self.kind != "tokens":
            raise ValueError("columns is for header: false")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError("columns: a name is there twice")
        return self

    @model_validator(mode="after")
    def _tables_of_tasks(self) -> TaskSection:
        if not kind_named(self.kind).has_targets:
            for key in self.newer:
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is for the tables of a task, not for kind: {self.kind}")
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        if value is not None and not is_encoding(value):
            raise ValueError(f"'{value}' is no encoding of text; for example utf-8, gb18030, big5, cp1252, utf-16")
        return value

    @model_validator(mode="after")
    def _masking_of_mlm(self) -> TaskSection:
        if self.masking is not None and self.kind != "mlm":
            raise ValueError("masking is for kind: mlm")
        if self.tokens is not None and self.kind != "tokens":
            raise ValueError("tokens is for kind: tokens")
        if self.answers is not None and self.kind != "question_answering":
            raise ValueError("answers is for kind: question_answering")
        for key in _OF_TABLES.get(self.kind, ()):
            if getattr(self, key) not in (None, ()):
                raise ValueError(f"{key} is for tables, not for kind: {self.kind}")
        if self.embeddings is not None and self.kind != "embeddings":
            raise ValueError("embeddings is for kind: embeddings")
        if self.ranking is not None and self.kind != "ranking":
            raise ValueError("ranking is for kind: ranking")
        if self.kind in _WITHOUT_CLASSES and (self.labels is not None or self.skip_labels):
            raise ValueError(f"labels and skip_labels are for classes, not for kind: {self.kind}")
        return self

    _absolute_data = field_validator("data")(absolute)

    @field_validator("labels", "columns", "skip_labels", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        # YAML reads `labels: [0, 1]` as numbers; in the data file they are text.
        return [label_text(item) for item in value] if isinstance(value, list) else value


class AuxSection(TaskSection):
    """Training texts beside the task's own: another task's, or texts without labels, from which only a teacher can be learned.
    Those name `text` and no `label`, or `data` is a .txt file with a text a line; where words have labels, also a .conll file of
    words. Words with labels are named with `kind: tokens`."""

    newer: ClassVar[tuple[str, ...]] = (*TaskSection.newer, "weight")

    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """What one of its examples counts in the losses, against one of the task's own."""


@functools.lru_cache(maxsize=16)
def task_types(kinds: tuple[str, ...]) -> tuple[type[TaskSection], type[AuxSection]]:
    """The two sections, whose `kind` may also be one of these, which plugins have registered."""
    if not kinds:
        return TaskSection, AuxSection
    field = (Literal[(*KIND_NAMES, *kinds)] | None, None)
    return tuple(create_model(base.__name__, __base__=base, kind=field) for base in (TaskSection, AuxSection))


def loaded_task_section() -> type[TaskSection]:
    """The section, whose `kind` may also be one of those of the plugins that this process has loaded."""
    return task_types(tuple(name for name, kind in KINDS.items() if kind.code))[0]


def with_folder(section: TaskSection, where: str = "task.data") -> TaskSection:
    """The section with the folder of its data, where that is a name of the Hugging Face hub; `where` is what named it. Raises
    DataError where it cannot be had."""
    return section.model_copy(update={"data": hub_folder(section.data, where, True)})
