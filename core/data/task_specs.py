"""What a task is, and the GLUE tasks, which are known by their official files (Wang et al. 2019, https://gluebenchmark.com)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..kinds.kind import Kind
from ..kinds.known_kinds import ONE_CLASS, ONE_NUMBER
from ..metrics import Metric
from ..registered import RegisteredTask
from .answer_format import AnswerFormat
from .embedding_format import EmbeddingFormat
from .ranking_format import RankingFormat
from .table_rows import TableFormat
from .tagged_format import TaggedFormat

SPLITS = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
_MNLI_SPLITS = {
    "train": "train.tsv",
    "dev": "dev_matched.tsv",
    "dev_mismatched": "dev_mismatched.tsv",
    "test": "test_matched.tsv",
    "test_mismatched": "test_mismatched.tsv",
}
_COLA_HEADER = ("source", "label", "mark", "sentence")
_ENTAILMENT = ("entailment", "not_entailment")
_BINARY = ("0", "1")


@dataclass(frozen=True)
class TaskSpec:
    name: str
    text: str
    text_pair: str | None  # None: one text an example
    label: str
    labels: tuple[str, ...] | None  # class index -> label as the file spells it; None: no classes
    metrics: tuple[str, ...]  # the first one chooses the best checkpoint
    splits: dict[str, str] = field(default_factory=lambda: dict(SPLITS))  # split -> file name
    header: tuple[str, ...] | None = None  # column names where files have no header line
    test_has_header: bool = False  # whether a test split has one all the same
    names: tuple[str, ...] | None = None  # what the classes mean, where the file only has numbers
    kind: Kind = ONE_CLASS
    format: TableFormat = TableFormat()
    tagged: TaggedFormat | None = None  # how files of words with labels are read
    answering: AnswerFormat | None = None  # how files of questions are read
    embedded: EmbeddingFormat | None = None  # how files of sentence embeddings are read
    ranked: RankingFormat | None = None  # how files of rankings are read
    skip_labels: tuple[str, ...] = ()  # rows with them are left out
    labels_from: str = ""  # the file that the labels were found in
    own_metrics: Mapping[str, Metric] = field(default_factory=dict)  # those of plugins
    own: RegisteredTask | None = None  # a plugin's task, which reads its data itself
    taught: bool = False  # whether a file answers in a teacher's place: tables may then have no column of labels

    @property
    def reads_pairs(self) -> bool:
        """Whether a model reads two texts at once."""
        return self.kind.of_spans or self.kind.ranks or self.text_pair is not None and not self.kind.embeds

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names that a model of this task gives its classes; None without classes."""
        return self.names if self.names is not None and self.labels is not None else self.labels


GLUE_TASKS = {
    spec.name: spec
    for spec in (
        TaskSpec(
            "cola", "sentence", None, "label", _BINARY, ("matthews",), header=_COLA_HEADER, test_has_header=True,
        ),
        TaskSpec("sst-2", "sentence", None, "label", _BINARY, ("accuracy",), names=("negative", "positive")),
        TaskSpec(
            "mrpc", "#1 String", "#2 String", "Quality", _BINARY, ("accuracy", "f1"),
            names=("not_equivalent", "equivalent"),
        ),
        TaskSpec(
            "qqp", "question1", "question2", "is_duplicate", _BINARY, ("accuracy", "f1"),
            names=("not_duplicate", "duplicate"),
        ),
        TaskSpec("sts-b", "sentence1", "sentence2", "score", None, ("pearson", "spearman"), kind=ONE_NUMBER),
        TaskSpec(
            "mnli", "sentence1", "sentence2", "gold_label", ("entailment", "neutral", "contradiction"), ("accuracy",),
            _MNLI_SPLITS,
        ),
        TaskSpec("qnli", "question", "sentence", "label", _ENTAILMENT, ("accuracy",)),
        TaskSpec("rte", "sentence1", "sentence2", "label", _ENTAILMENT, ("accuracy",)),
        TaskSpec("wnli", "sentence1", "sentence2", "label", _BINARY, ("accuracy",)),
    )
}


def glue_task(name: str) -> TaskSpec | None:
    """The GLUE task of that name, whatever its case and hyphens."""
    key = name.lower().replace("-", "")
    return next((spec for known, spec in GLUE_TASKS.items() if known.replace("-", "") == key), None)
