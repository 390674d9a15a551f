"""A task whose words have labels: which files, which labels, and a split of it as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError, did_you_mean
from ..kinds.kind import Kind
from ..shown import shown
from .arrow_tables import ARROW_EXTENSIONS, arrow_split, is_arrow
from .folders import folders_for_files
from .labels import listed
from .tag_schemes import PLAIN, bio_labels, is_bio
from .tagged_files import COLUMN_FILES, JSON_FILES, found_types, read_tagged
from .tagged_format import TaggedFormat
from .task_definitions import TaskSection, check_folder, splits_of_names
from .task_specs import SPLITS, TaskSpec
from .texts import Texts


def token_task(section: TaskSection, kind: Kind, taught: bool = False) -> TaskSpec:
    """The task that a recipe means. Its labels are those of train where it names none; `taught` by a file, train may have none.
    Raises DataError."""
    check_folder(section.data)
    own, given = section.tokens, (section.text or "", section.label or "", section.columns, section.encoding)
    how = () if own is None else (own.scheme, own.pieces == "all", own.overlap, own.constrained, own.stray == "begin")
    labels, source, folder = section.labels, "", Path(section.data)
    format = TaggedFormat(*given, *how, classes=None if labels is None else tuple(labels))
    splits = splits_of_names(section, [f"{{}}{end}" for end in (*COLUMN_FILES, *JSON_FILES, *ARROW_EXTENSIONS)])
    for split in SPLITS:
        found = [] if split in splits else arrow_split(folder, split)
        if len(found) > 1:
            raise DataError(f"task.files.{split}: needed, because {folder} holds {' and '.join(found)}")
        if found:
            splits[split] = found[0]
    if labels is None:
        if "train" not in splits:
            ends = (*COLUMN_FILES, ".jsonl", *ARROW_EXTENSIONS)
            expected = f"{', '.join(f'train{end}' for end in ends)}, or task.files.train"
            raise DataError(f"{folder}: task '{section.name}' has no file for the split 'train' ({expected})")
        source = splits["train"]
        tags = read_tagged(folder / source, format, not taught).tags
        if tags is None:
            raise DataError(f"task.labels: needed, because {folder / source} has no labels to find them in")
        labels = sorted({tag for row in tags for tag in row}) if format.scheme == PLAIN else bio_labels(found_types(tags))
        if len(labels) < 2:
            got = listed(labels) or "O"
            raise DataError(f"{folder / source}: every word has the label {got}, expected two or more different ones")
    elif format.scheme != PLAIN and not is_bio(labels):
        expected = "O, B-TYPE and I-TYPE of each type; or task.tokens.scheme: plain"
        raise DataError(f"task.labels: got {listed(labels)}, expected {expected}")
    elif len(labels) < 2 or len(set(labels)) < len(labels):
        raise DataError(f"task.labels: expected two or more different labels, got {listed(labels)}")
    return TaskSpec(
        section.name, format.text, None, format.label, tuple(labels), (), splits, kind=kind, tagged=format, labels_from=source,
        taught=taught,
    )


def without_numbers(spec: TaskSpec) -> TaskSpec:
    """The task whose labels were found, by whose order no number in a file is meant."""
    return spec if spec.tagged is None else replace(spec, tagged=replace(spec.tagged, classes=None))


@dataclass(frozen=True)
class TaggedSplit:
    """The words of a split with the numbers of their labels."""

    texts: Texts
    targets: np.ndarray | None
    """(texts, most words) int16, -1 behind the last word; None where the file has no labels."""
    lines: np.ndarray
    by_spaces: bool
    notes: tuple[str, ...]


def tagged_split(
    path: Path, format: TaggedFormat, labels: Sequence[str], source: str, has_labels: bool = True
) -> TaggedSplit:
    """A split's file, which without `has_labels` may have none. `source` is the file whose labels these are. Raises DataError,
    which names file and line."""
    if not path.is_file() and not is_arrow(path):
        raise DataError(folders_for_files(path.parent, [path.name]) or f"{path}: no such file")
    found, number_of = read_tagged(path, format, has_labels), {label: number for number, label in enumerate(labels)}
    if found.tags is None:
        return TaggedSplit(found.texts, None, found.lines, found.by_spaces, tuple(found.notes))
    targets = np.full((len(found.tags), max(map(len, found.tags), default=1) or 1), -1, np.int16)
    for row, tags in enumerate(found.tags):
        for word, tag in enumerate(tags):
            if tag not in number_of:
                way = f"; {source} has no such label" if source else ""
                line = f"{path}:{found.lines[row] + (word if found.word_a_line else 0)}"
                near = did_you_mean(tag, labels).rstrip("?")
                expected = f"one of {listed(labels)}{near}{way}; task.labels names all"
                raise DataError(f"{line}: got label {shown(tag)}, expected {expected}")
            targets[row, word] = number_of[tag]
    return TaggedSplit(found.texts, targets, found.lines, found.by_spaces, tuple(found.notes))
