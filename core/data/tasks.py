"""Tasks: which file and columns hold the texts and labels, what the labels are, and how predictions are scored.

The GLUE tasks are known by their official files (Wang et al. 2019, https://gluebenchmark.com); any other name is a
plain task, whose columns the recipe gives. A folder of records (`record_note`) says itself what its task is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..class_metrics import CLASS_METRICS, PER_CLASS, class_metric, expanded, is_class_metric
from ..errors import DataError, Errors, did_you_mean
from ..kinds.kind import Kind
from ..kinds.known_kinds import kind_named
from ..metrics import KNOWN_METRICS
from ..plugin_calls import checked_metric, from_kind
from ..registered import NOTHING, Registered
from .answer_files import read_questions
from .answer_tasks import Asked, answers_task
from .embedding_tasks import embedding_split, embedding_task
from .folders import folder_contents, folders_for_files
from .labels import listed
from .numbered_rows import MixedRows
from .own_tasks import own_columns, own_task
from .ranking_tasks import ranking_split, ranking_task
from .records.record_note import read_note
from .records.task_records import RecordTokens, read_recorded
from .tables import EXTENSIONS, Columns, is_half, read_columns
from .tagged_tasks import tagged_split, token_task
from .task_definitions import (
    TaskSection,
    check_folder,
    check_misspelt,
    check_records,
    found_splits,
    no_split,
    official_task,
    plain_task,
    recorded_task,
    table_format,
    without_labels,
)
from .task_specs import TaskSpec, glue_task
from .taught import Taught


@dataclass
class Examples:
    texts: Sequence[str]
    """None of them where there are `tokens` instead, or where they are tokens already and no longer needed."""
    pairs: Sequence[str] | None
    labels: np.ndarray | None
    """(examples,) int32 class index or float32 score, (examples, labels) float32 0 or 1 where an example may have several;
    None: the file has no labels."""
    source: Path
    line_numbers: np.ndarray  # (examples,) int64
    label_mask: np.ndarray | None = None  # (examples,) float32, 0 where the label means nothing; None: all are labels
    weights: np.ndarray | None = None
    """(examples,) float32 above 0: what each counts in the losses; None: 1."""
    tokens: RecordTokens | None = None
    notes: tuple[str, ...] = ()
    """What a person must know of how the file was read."""
    by_spaces: np.ndarray | None = None
    """Of words with labels: (examples,) booleans, whether the words of a text are those between spaces
    (`core.data.tagged_files`). Their `labels` are (examples, most words) int16, -1 of words that have none."""
    word_counts: np.ndarray | None = None
    """(examples, most words) float32: what each word counts in losses over logits; None: 1 where it has a label."""
    asked: Asked | None = None
    """Of questions, of which `texts` are the questions and `pairs` the contexts."""
    members: int = 1
    """How many of the texts an example has: the first ones of all examples come first, then the second ones."""
    mixed_rows: MixedRows | None = None
    """Which of the last examples are of other data; None: none is."""
    taught: Mapping[str, Taught] = field(default_factory=dict)
    """Teacher -> its answers, of those that are files."""
    lists: np.ndarray | None = None
    """Of rankings, of which each row is a query and a candidate, with a label: (examples + 1,) int64, from which row on each
    list is, and the end of the last."""
    row_scores: np.ndarray | None = None
    """(rows,) float32: what another model scored, where the file says it."""
    among: np.ndarray | None = None
    """Of queries that are to find their own among all texts, which stand behind them in `texts`: (judgements,) int64, which of
    the texts each label is of; `lists` says which labels are each query's."""

    def __len__(self) -> int:
        return len(self.line_numbers)

    @property
    def mixed(self) -> int:
        """How many of the last examples are of other data."""
        return 0 if self.mixed_rows is None else len(self.mixed_rows.sections)

    def without_texts(self) -> Examples:
        """The same, when only labels are needed any more, and the contexts that answers are parts of."""
        return replace(self, texts=[], pairs=None if self.asked is None else self.pairs)


def label_counts(kind: Kind, examples: Examples, classes: int) -> tuple[tuple[int, ...] | None, int]:
    """How many examples have each class or label, None without classes, and how many have any label."""
    if examples.labels is None:
        return (0,) * classes if kind.has_classes else None, 0
    known = examples.labels if examples.label_mask is None else examples.labels[examples.label_mask > 0]
    counts = kind.counts(known, classes) if kind.has_classes else None
    return None if counts is None else tuple(map(int, counts)), kind.labelled(known)


def target_range(examples: Examples) -> dict[str, tuple[float, float]]:
    """From where to where the numbers of rankings are: those of `labels`, and a teacher's `scores`, as far as there are any."""
    found = {"labels": examples.labels, "scores": examples.row_scores}
    return {key: (float(values.min()), float(values.max())) for key, values in found.items() if values is not None}


def resolve_task(section: TaskSection, registered: Registered = NOTHING, taught: bool = False) -> TaskSpec:
    """The task a recipe means: GLUE's definition or a plain one, with what the recipe states in place of defaults; tasks and
    metrics may be `registered` by plugins. Where a file teaches (`taught`), tables may have no column of labels.

    Names of GLUE tasks are matched without case and hyphen. Raises DataError, which names the recipe key.
    """
    kind = kind_named(section.kind)
    if not kind.has_targets:
        return TaskSpec(section.name, "", None, "", None, (), {}, kind=kind)
    if kind.per_token:
        return _with_token_metrics(section, token_task(section, kind, taught))
    if kind.of_spans:
        return replace(answers_task(section, kind), taught=taught)
    if not kind.one_row:
        spec = embedding_task(section, kind) if kind.embeds else ranking_task(section, kind)
        return spec if section.metrics is None else replace(spec, metrics=_checked_metrics(section.metrics, spec, ()))
    official, note = glue_task(section.name), read_note(section.data)
    if section.name in registered.tasks:
        spec, note = own_task(section, registered.tasks[section.name]), None
        if spec.labels is None and spec.kind.has_classes:
            columns = split_columns(spec, section.data, "train")
            path, cells = section.data / "train", columns.cells[spec.label]
            found = from_kind(spec.kind, "found_labels", path, cells, columns.line_numbers, spec.label)
            spec = replace(spec, labels=found, labels_from="train")
    elif official is None:
        spec = plain_task(section, registered.tasks, taught) if note is None else recorded_task(section, note)
    else:
        spec = official_task(section, official)
    spec = replace(spec, taught=taught)
    if spec.labels is not None and (len(spec.labels) < 2 or len(set(spec.labels)) < len(spec.labels)):
        raise DataError(f"task.labels: expected two or more different labels, got {listed(spec.labels)}")
    half = next((label for label in spec.labels or () if is_half(label)), None)
    if half is not None:
        raise DataError(f"task.labels: {ascii(half)} holds half a surrogate pair")
    if note is not None:
        check_records(section, spec, note)
        spec = replace(spec, splits={split: found.file for split, found in note.splits.items()})
    wanted = section.metrics if section.metrics is not None or spec.own is None else spec.own.metrics
    if wanted is not None:
        own = {name: checked_metric(each) for name, each in registered.metrics.items() if spec.kind.name in each.kinds}
        names = _checked_metrics(wanted, spec, tuple(own))
        own |= {name: class_metric(name, spec.label_names) for name in names if is_class_metric(name)}
        spec = replace(spec, metrics=names, own_metrics=own)
    return spec


def read_split(spec: TaskSpec, data_folder: Path, split: str) -> Examples:
    """Read the examples of one split. A test split without the label column has no labels, as in GLUE.

    Raises DataError that names the file and, for a bad row, its line.
    """
    data_folder = Path(data_folder)
    if spec.own is None:
        check_folder(data_folder)
    if spec.embedded is not None:
        found = embedding_split(spec, data_folder, split)
        path = data_folder / spec.splits[split]
        more = {"members": found.members, "lists": found.lists, "among": found.among, "row_scores": found.taught}
        return Examples(found.texts, None, found.scores, path, found.lines, notes=found.notes, **more)
    if split not in spec.splits:
        raise no_split(spec.name, data_folder, split, spec.splits)
    if spec.ranked is not None:
        queries, candidates, labels, taught, lists, lines, notes = ranking_split(spec, data_folder, split)
        path = data_folder / spec.splits[split]
        return Examples(queries, candidates, labels, path, lines, notes=notes, lists=lists, row_scores=taught)
    path = data_folder / spec.splits[split]
    is_test = split.startswith("test")
    if spec.tagged is not None:
        source = "" if path.name == spec.labels_from else spec.labels_from
        found = tagged_split(path, spec.tagged, spec.labels, source, not spec.taught)
        by_spaces = np.full(len(found.lines), found.by_spaces)
        return Examples(found.texts, None, found.targets, path, found.lines, notes=found.notes, by_spaces=by_spaces)
    if spec.answering is not None:
        return _questions(path, spec, split)
    note = read_note(data_folder) if spec.own is None else None
    if note is not None:
        tokens, labels = read_recorded(data_folder, note, split)
        if labels is None and not is_test:
            raise DataError(f"{path}: its records have no labels")
        return Examples([], None, labels, path, np.arange(1, len(tokens.table.lengths) + 1), tokens=tokens)
    columns = split_columns(spec, data_folder, split)
    labels = None
    if spec.label in columns.cells:
        cells, source = columns.cells[spec.label], "" if path.name == spec.labels_from else spec.labels_from
        labels = from_kind(spec.kind, "targets", path, spec.label, spec.labels or (), cells, columns.line_numbers, source)
    pairs = None if spec.text_pair is None else columns.cells[spec.text_pair]
    return Examples(columns.cells[spec.text], pairs, labels, path, columns.line_numbers, notes=columns.notes)


def read_split_texts(spec: TaskSpec, data_folder: Path, split: str) -> Examples:
    """The same for its texts alone: labels need not be there."""
    if spec.tagged is not None:
        return read_split(replace(spec, taught=True), data_folder, split)
    if spec.own is not None or split not in spec.splits or read_note(data_folder) is not None:
        return read_split(spec, data_folder, split)
    file = spec.splits[split]
    if spec.embedded is None:
        return read_split(replace(spec, splits={**spec.splits, "test": file}), data_folder, "test")
    if spec.embedded.retrieval:
        return read_split(spec, data_folder, split)
    of_texts = replace(spec.embedded, examples="texts")
    return read_split(replace(spec, embedded=of_texts, splits={**spec.splits, "train": file}), data_folder, "train")


def _questions(path: Path, spec: TaskSpec, split: str) -> Examples:
    if not path.is_file():
        raise DataError(folders_for_files(path.parent, [path.name]) or f"{path}: no such file; {folder_contents(path.parent)}")
    found = read_questions(path, spec.answering, not spec.taught and not split.startswith("test"))
    asked = Asked(tuple(found.ids), tuple(found.golds))
    lines = np.array(found.lines, np.int64)
    given = found.questions, found.contexts, found.targets, path, lines
    return Examples(*given, notes=tuple(found.notes), asked=asked)


def split_columns(spec: TaskSpec, data_folder: Path, split: str) -> Columns:
    """The texts and labels of a split as its table or the plugin's reader has them, without the labels to skip."""
    path, is_test = data_folder / spec.splits[split], split.startswith("test")
    may_lack = is_test or spec.taught
    texts = [spec.text] if spec.text_pair is None else [spec.text, spec.text_pair]
    if spec.own is not None:
        columns = own_columns(spec.own, data_folder, split)
    else:
        _check_file(path, split)
        columns = read_columns(
            path,
            required=texts if may_lack else [*texts, spec.label],
            optional=[spec.label] if may_lack else [],
            header=None if is_test and spec.test_has_header else spec.header,
            texts=texts,
            format=spec.format,
        )
        if spec.taught and spec.label not in columns.cells:
            check_misspelt(path, spec.label, spec.header, spec.format)
    return without_labels(path, columns, spec.label, spec.skip_labels, texts)


def check_files(section: TaskSection) -> None:
    """What is wrong with the train and dev files of a task that cannot be resolved, to be told together with the reason; raises
    DataError."""
    kind = kind_named(section.kind)
    if not kind.has_targets or kind.per_token or glue_task(section.name) is not None or not (section.text and section.label):
        return
    check_folder(section.data)
    errors, splits = Errors(), found_splits(section)
    names = [name for name in (section.text, section.text_pair, section.label) if name is not None]
    for split in ("train", "dev"):
        if split not in splits:
            errors.append(no_split(section.name, section.data, split, splits))
        else:
            path = section.data / splits[split]
            errors.collect(read_columns, path, names, (), section.columns, names[:-1], table_format(section, "error"))
    errors.throw()


def _check_file(path: Path, split: str) -> None:
    """Raise DataError where a task's file is not there, with the one that may be meant."""
    if path.exists() or "*" in path.name:
        return
    others = [f"{split}{end}" for end in EXTENSIONS if (path.parent / f"{split}{end}").is_file()]
    hint = f"; to read {others[0]}: task.files.{split}: {others[0]}" if others else ""
    raise DataError(f"{path}: no such file; {folder_contents(path.parent)}{hint}")


def _with_token_metrics(section: TaskSection, spec: TaskSpec) -> TaskSpec:
    known = spec.kind.metrics_of(spec.labels)
    wanted = section.metrics if section.metrics is not None else [name for name in known if "/" not in name]
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known) or f"; expected one of {', '.join(known)}"
            raise DataError(f"task.metrics: '{name}' is no metric for this task{hint}")
    if not wanted:
        raise DataError(f"task.metrics: expected one or more of {', '.join(known)}, got none")
    return replace(spec, metrics=tuple(wanted))


def _checked_metrics(metrics: Sequence[str], spec: TaskSpec, own: tuple[str, ...]) -> tuple[str, ...]:
    fitting, has_classes = spec.kind.metrics(len(spec.labels or ())), spec.kind.has_classes
    if has_classes:
        fitting += (PER_CLASS,)
        metrics = expanded(metrics, spec.label_names)
    fitting += own
    for name in metrics:
        if name not in fitting and not (has_classes and is_class_metric(name)):
            near, plugin = did_you_mean(name, fitting), "" if name in KNOWN_METRICS else "; a plugin's needs --plugin FILE"
            one = f", or {'/'.join((CLASS_METRICS[-2], spec.label_names[-1]))} of one class" if has_classes else ""
            hint = (near or f"; expected one of {', '.join(fitting)}{one}") + plugin
            raise DataError(f"task.metrics: '{name}' is no metric for this task{hint}")
    if not metrics:
        raise DataError(f"task.metrics: expected one or more of {', '.join(fitting)}, got none")
    return tuple(metrics)
