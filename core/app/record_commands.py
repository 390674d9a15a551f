"""`crossdistil data export` and `data import`: a task as record files of tokens, and record files as a task."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CrossdistilError, DataError, did_you_mean
from ..lengths import LONGEST
from .options import hand_over
from .progress import make_console

if TYPE_CHECKING:
    from ..data.records.record_note import RecordNote
    from ..data.task_specs import TaskSpec
    from ..data.tokenize import Tokenizer
    from ..kinds.kind import Kind as TaskKind
    from .record_files import Found


class RecordFormat(str, Enum):
    """Kinds of record files."""

    tfrecord = "tfrecord"
    ofrecord = "ofrecord"
    mindrecord = "mindrecord"


class Target(str, Enum):
    """What records become."""

    texts = "texts"
    tfrecord = "tfrecord"
    ofrecord = "ofrecord"
    mindrecord = "mindrecord"


class Kind(str, Enum):
    """What a task asks for."""

    classification = "classification"
    regression = "regression"
    multi_label = "multi_label"


_TokenizerOption = Annotated[Path | None, typer.Option(help="A model's folder, or one with vocab.txt.")]
_KindOption = Annotated[Kind | None, typer.Option(help="Of a task that is not GLUE's; default: classification.")]


def add_record_commands(data_app: typer.Typer) -> None:
    """Put both under `crossdistil data`."""
    data_app.command("export")(export_records)
    data_app.command("import")(import_records)


def export_records(
    task: Annotated[str, typer.Option(help="A GLUE task, or any name together with --text and --label.")],
    data: Annotated[Path, typer.Option(help="Folder with the task's files.")],
    tokenizer: Annotated[Path, typer.Option(help="A model's folder, or one with vocab.txt.")],
    out: Annotated[Path, typer.Option(help="A new folder, or one of an earlier export, which is replaced.")],
    format: Annotated[RecordFormat, typer.Option(help="mindrecord needs MindSpore.")] = RecordFormat.tfrecord,
    max_length: Annotated[
        int, typer.Option(min=4, max=LONGEST, help="Tokens of a row, to which texts are cut and padded.")
    ] = 128,
    kind: _KindOption = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="Column of the second texts.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
) -> None:
    """Write a task's splits as record files of tokens, which recipes take as task.data, and records.json beside them."""
    from ..data.records.record_note import NOTE
    from ..data.task_specs import GLUE_TASKS, glue_task
    from ..data.tasks import resolve_task
    from ..task_section import TaskSection
    from .record_files import task_splits, write_records

    _check_out(out, data)
    if format is RecordFormat.mindrecord:
        hand_over("mindspore")
    if not data.is_dir():
        raise CrossdistilError(f"--data {data}: {'is a file, expected a folder' if data.exists() else 'no such folder'}")
    given = {"text": text, "label": label}
    if glue_task(task) is None and not (data / NOTE).is_file() and None in given.values():
        option = next(name for name, value in given.items() if value is None)
        near = did_you_mean(task.lower(), GLUE_TASKS)
        raise CrossdistilError(f"--{option}: needed, because '{task}' is not a GLUE task{near}")
    chosen = None if kind is None else kind.value
    spec = resolve_task(TaskSection(name=task, data=data, kind=chosen, text_pair=text_pair, **given))
    loaded = _pieces(tokenizer)
    problem = loaded.case_problem()
    if problem is not None:
        raise CrossdistilError(f"--tokenizer {problem}")
    splits = task_splits(spec, data, loaded, max_length)
    note = write_records(out, spec, splits, loaded, max_length, format.value)
    _report(spec, splits, note, out)


def import_records(
    source: Annotated[Path, typer.Argument(help="A folder of TFRecord, OFRecord or MindRecord files of tokens.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    tokenizer: _TokenizerOption = None,
    to: Annotated[Target, typer.Option(help="Records with records.json, or texts in .tsv files.")] = Target.tfrecord,
    task: Annotated[str | None, typer.Option(help="Whose records they are, where no records.json says it.")] = None,
    labels: Annotated[str | None, typer.Option(help="The classes in their order, with commas between them.")] = None,
    kind: _KindOption = None,
) -> None:
    """Check every record of a folder and make a task of them that recipes take as task.data."""
    from ..augmentation.task_folder import check_new_folder
    from .record_files import find_records, read_splits, write_records, write_texts

    check_new_folder(out, "--out")
    found = find_records(source)
    if RecordFormat.mindrecord.value in (found.format, to.value):
        hand_over("mindspore")
    if tokenizer is None:
        raise CrossdistilError("--tokenizer: needed to check the tokens, the folder whose vocabulary they are of")
    loaded = _pieces(tokenizer)
    if found.note is not None:
        spec, max_length = _noted(found.note, source, loaded, {"--task": task, "--labels": labels, "--kind": kind})
    else:
        spec, max_length = _told(found, source, task, labels, kind)
    splits = read_splits(found, spec, loaded, max_length)
    console = make_console()
    if to is Target.texts:
        for line in write_texts(out, spec, splits, loaded, max_length):
            console.print(line, markup=False)
        console.print("lost: capitals and accents that the vocabulary lacks, and which words had no space between them")
        console.print(f"written to {out}", markup=False)
    else:
        _report(spec, splits, write_records(out, spec, splits, loaded, max_length, to.value), out)


def _pieces(folder: Path) -> Tokenizer:
    from ..data.tokenize import load_tokenizer

    loaded = load_tokenizer(folder)
    if loaded.is_words:
        raise CrossdistilError(f"--tokenizer {folder}: has whole words, records need word pieces")
    if not loaded.is_berts:
        raise CrossdistilError(
            f"--tokenizer {folder}: is a {loaded.kind} tokenizer with other special tokens around texts than BERT's; records are "
            "`[CLS] text [SEP] pair [SEP]` of word pieces. Recipes take the texts themselves"
        )
    return loaded


def _check_out(out: Path, data: Path) -> None:
    """An export takes the place of an earlier one, and of nothing else."""
    from ..augmentation.task_folder import check_new_folder
    from ..data.records.record_note import NOTE

    if not (out / NOTE).is_file():
        check_new_folder(out, "--out")
    elif out.resolve() == data.resolve():
        raise CrossdistilError(f"--out {out}: is the folder of --data")


def _noted(note: RecordNote, source: Path, tokenizer: Tokenizer, given: dict) -> tuple[TaskSpec, int]:
    from ..data.records.record_note import NOTE
    from ..kinds.known_kinds import kind_titled

    for option, value in given.items():
        if value is not None:
            raise CrossdistilError(f"{option}: only for records without {NOTE}, which {source} has")
    problems = note.fit_problems(tokenizer.library, note.max_length)
    if problems:
        raise DataError("\n".join(f"{source}: {problem}" for problem in problems))
    return _spec(note.task, kind_titled(note.kind), note.labels, note.text, note.text_pair, note.label), note.max_length


def _told(found: Found, source: Path, task: str | None, labels: str | None, kind: Kind | None) -> tuple[TaskSpec, int]:
    from ..data.records.record_note import NOTE
    from ..data.task_specs import glue_task
    from ..kinds.known_kinds import kind_named
    from .record_files import first_shape

    if task is None:
        raise CrossdistilError(f"--task: needed, because {source} has no {NOTE}")
    max_length, pairs = first_shape(found)
    official = glue_task(task)
    if official is not None:
        if labels is not None or kind is not None:
            option = "--labels" if labels is not None else "--kind"
            raise CrossdistilError(f"{option}: '{official.name}' is a GLUE task, whose labels are known")
        return official, max_length
    of_task = kind_named(None if kind is None else kind.value)
    names = [name.strip() for name in (labels or "").split(",") if name.strip()]
    if of_task.has_classes != bool(names) or (names and len(set(names)) < max(2, len(names))):
        several = "expected two or more different ones, with commas between them"
        expected = several if of_task.has_classes else f"{of_task.described} has none"
        raise CrossdistilError(f"--labels: {expected}")
    return _spec(task, of_task, names or None, "text", "text_pair" if pairs else None, "label"), max_length


def _spec(
    name: str, kind: TaskKind, labels: list[str] | None, text: str, text_pair: str | None, label: str
) -> TaskSpec:
    """The task that records are of: its files have the names, and CoLA's the columns, that are known."""
    from ..data.task_specs import TaskSpec, glue_task

    official = glue_task(name)
    own = {} if official is None else {"splits": official.splits, "header": official.header, "names": official.names}
    return TaskSpec(
        name=name,
        text=text,
        text_pair=text_pair,
        label=label,
        labels=None if labels is None else tuple(labels),
        metrics=(),
        kind=kind,
        **own,
    )


def _report(spec: TaskSpec, splits: dict, note: RecordNote, out: Path) -> None:
    from .record_files import described

    console = make_console()
    for split, found in splits.items():
        for line in found.notes:
            console.print(line, markup=False)
        console.print(f"{note.splits[split].file}: {described(found, spec)}", markup=False)
    vocabulary = note.vocabulary
    console.print(
        f"{spec.name}, {spec.kind.title}, {note.max_length} tokens a row, vocabulary of {vocabulary.size:,} "
        f"({vocabulary.sha256[:12]}); written to {out}",
        markup=False,
    )
