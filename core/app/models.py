"""Any checkpoint as a model folder that core can load: what is in another format is converted once, into the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ...converters.canonical import CanonicalCheckpoint, ReadOptions
from ...converters.configuration import find_config, find_tokenizer
from ...converters.convert import ConvertOptions, convert
from ...converters.formats import is_checkpoint
from ...converters.reading import allowed
from ..cache_folder import kind_folder
from ..checkpoint import CARD, WEIGHTS
from ..config_file import CONFIG, model_config
from ..engine import Engine
from ..errors import CheckpointError, CrossdistilError, checkpoint_named
from ..hub_names import hub_folder, is_hub_name
from ..locks import hold_folder, made_by_one
from ..model_sections import ReadSection
from ..models.architectures import CONFIGURATIONS, is_encoder, knows_names
from ..models.head_classes import HEAD_PARTS, other_head
from ..models.known_families import family_code
from ..plan import START, Found
from ..processor import precision_notes
from ..recipe import Recipe
from ..recipe_tokenizers import teacher_key
from ..remedies import convert_command
from ..teacher_cache import card_of
from ..workplaces import remove_dead
from .run_folders import student_of

_OPTION = re.compile(r"--(?:ema|successor|fix-config)\b|--(?:rename|allow-extra|prefix|config) (?!PATTERN)(?:'[^']*'|[^\s',;)]+)")
"""Those of `convert`, with their values, as its errors name them; `--allow-missing` makes no model that can be used."""
_BEFORE_PATH, _IN_PATH = r"(?<![^\s'\"`(\[<=:,])", r"[^\s'\"`,;:)\]>]"
"""Where a path may begin in a message, and what goes on with one."""
_FORMAT = 3
"""Of the entries of the cache: what was made under another number is made again."""
_NOTES = "notes.json"
"""Beside a converted model: what its conversion had to tell, which is told each time that it is used."""


def model_folder(path: Path, where: str = "", read: ReadSection = ReadSection()) -> Path:
    """The canonical folder of the checkpoint at `path`: the path itself if it is one, or if nothing there is a checkpoint,
    about which core has its own errors. `where` names the recipe key that asked for it, `read` says what the checkpoint does not.
    Raises CheckpointError."""
    path = hub_folder(path, where or "model")
    with checkpoint_named(where):
        path = card_of(student_of(path))
    if (read == ReadSection() and is_canonical(path)) or not is_checkpoint(path):
        return path
    with checkpoint_named(where):
        folder = kind_folder("converted") / _identity(path, read)
        remove_dead(folder.parent)  # also where nothing is left to be written
        while not hold_folder(folder):  # from now on, or another process might remove it before it is read
            try:
                with made_by_one(folder):
                    if not folder.is_dir():
                        _convert(path, folder, read)
            except CrossdistilError as error:
                if not folder.is_dir():  # else another process was faster
                    raise CheckpointError(_with_command(str(error), path, where)) from error
    return folder


def _with_command(problem: str, path: Path, where: str) -> str:
    """A problem that names options of `convert`, with the whole command, and with the key of the recipe that asked for the model:
    who reads it is not converting."""
    options = list(dict.fromkeys(_OPTION.findall(problem)))
    if not options:
        return problem
    first = options[0]
    same = [option for option in options if option.split()[0] == first.split()[0]]  # several --rename belong together
    lines = [problem, f"(the whole command: {convert_command(path, ' '.join(same))}, whose result takes the place of {path})"]
    key = first.split()[0].removeprefix("--").replace("-", "_")
    if where and key in ReadSection.model_fields:
        values = [value for option in same for value in shlex.split(option)[1:]]
        shown_value = json.dumps(values) if key in ("rename", "allow_extra") else values[0] if values else "true"
        lines.append(f"(or in the recipe: {where.rpartition('.')[0]}.read.{key}: {shown_value})")
    return "\n".join(lines)


def _convert(path: Path, folder: Path, read: ReadSection) -> None:
    config, _ = find_config(path, None)
    other = None if config is None else other_head(config)
    patterns: tuple[str, ...] = ()
    if other is not None:
        # Its encoder can be used; that the head is left out is among the notes.
        patterns = tuple(pattern for part in sorted(HEAD_PARTS) for pattern in (f"{part}.*", f"*.{part}.*"))
    options = ReadOptions(
        allow_extra=(*read.allow_extra, *patterns), prefix=read.prefix, rename=read.rename, ema=read.ema, successor=read.successor
    )

    def keep_notes(checkpoint: CanonicalCheckpoint, temporary: Path) -> None:
        notes = [note for note in checkpoint.notes if note not in checkpoint.config_notes]
        by_user = set(allowed(checkpoint.left_out, read.allow_extra))
        for name in checkpoint.left_out:
            notes.append(f"{name} is left out: " + ("read.allow_extra" if name in by_user or other is None else other.reason))
        (temporary / _NOTES).write_text(json.dumps(notes), encoding="utf-8")

    convert(path, folder, ConvertOptions("pytorch", for_us=True, read=options), keep_notes)


def tell_notes(notes: Iterable[str], tell: Callable[[str], None] | None, *pairs: tuple[Path, Path]) -> None:
    """`tell` what the user of models should know, or log it where there is no such function. `pairs` are (given, folder), as for
    `paths_as_given`."""
    for line in all_notes(notes, *pairs):
        if tell is None:
            logging.getLogger(__name__).warning("%s", line)
        else:
            tell(f"note: {line}")


def told_engine(engine: Engine, tell: Callable[[str], None] | None) -> Engine:
    """An engine whose device's notes on the precision are told, as `tell_notes` does."""
    tell_notes(precision_notes(engine.precision, engine.device), tell)
    return engine


def all_notes(notes: Iterable[str], *pairs: tuple[Path, Path]) -> list[str]:
    """These lines and those of the conversions that made the folders, by the names that were given, each once."""
    lines = [_as_given(line, pairs) for line in notes]
    for given, folder in pairs:
        if given != folder:
            lines += [f"{given}: {note}" for note in _conversion_notes(folder)]
    return list(dict.fromkeys(lines))


def _conversion_notes(folder: Path) -> list[str]:
    try:
        return json.loads((folder / _NOTES).read_text(encoding="utf-8"))
    except OSError:  # another process cleared the cache, which the next reading of the folder tells
        return []


def _as_given(text: str, pairs: Iterable[tuple[Path, Path]]) -> str:
    """A folder by the path that was given for it, and a file that a conversion took over by its place beside the checkpoint. Any
    other path, in that folder, or which only holds its name, is where it says."""
    for given, folder in pairs:
        if given != folder:
            taken: dict[str, Path] = {}
            if folder.parent == kind_folder("converted"):
                with contextlib.suppress(CheckpointError):
                    _, config = find_config(given, None)
                    taken = find_tokenizer(given) | ({} if config is None else {CONFIG: config})

            def shown_path(match: re.Match[str], given: Path = given, taken: Mapping[str, Path] = taken) -> str:
                name = match["name"]
                return str(given) if name is None else str(taken.get(name, match[0]))

            whole = rf"{_BEFORE_PATH}{re.escape(str(folder))}(?:/(?P<name>{_IN_PATH}+))?(?!\.?{_IN_PATH}|/)"
            text = re.sub(whole, shown_path, text)
    return text


@contextlib.contextmanager
def paths_as_given(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """Errors about folders in the cache, which no user knows, name the paths that were given. `pairs` are (given, folder)."""
    try:
        yield
    except CrossdistilError as error:
        error.args = (_as_given(str(error), pairs),)
        raise


def model_paths(recipe: Recipe) -> list[Path]:
    """Every model that a recipe names."""
    init = recipe.student.init.source
    paths = [section.model for section in recipe.model_teachers.values()]
    return paths + ([] if init in ("teacher", "random") else [Path(init)])


def found_models(recipe: Recipe, student: bool = True) -> Found:
    """The recipe with the canonical folders of its models in place of checkpoints of other formats and of names of the hub, which
    its data may have too, as far as they can be had; without `student`, of its teachers alone."""
    init, places, failures = recipe.student.init, {}, {}
    wanted = {teacher_key(recipe, name): (section.model, section.read) for name, section in recipe.model_teachers.items()}
    if student and init.source not in ("teacher", "random"):
        wanted[START] = Path(init.source), init.read
    for key, (path, read) in wanted.items():
        try:
            places[key] = model_folder(path, key, read)
        except CrossdistilError as error:
            failures[key] = error
    recipe = with_paths(recipe, places)
    if is_hub_name(recipe.task.data):
        try:
            folder = hub_folder(recipe.task.data, "task.data", True)
            recipe = recipe.model_copy(update={"task": recipe.task.model_copy(update={"data": folder})})
        except CrossdistilError as error:
            failures["task.data"] = error
    return Found(recipe, failures)


def with_paths(recipe: Recipe, places: Mapping[str, Path]) -> Recipe:
    """The recipe with these paths of models, by its keys."""
    sections = {
        name: section.model_copy(update={"model": places.get(teacher_key(recipe, name), section.model)})
        for name, section in recipe.all_teachers.items()
    }
    changes: dict[str, Any] = {"teachers": sections} if recipe.teacher is None else {"teacher": sections["teacher"]}
    if START in places:
        init = recipe.student.init.model_copy(update={"source": str(places[START])})
        changes["student"] = recipe.student.model_copy(update={"init": init})
    return recipe.model_copy(update=changes)


def is_canonical(path: Path) -> bool:
    """Whether core reads this folder as it is: its container, its model type and its tensors' names are the canonical ones. What
    is damaged, or cannot be any model, counts as one, since core says what is wrong. Only the configuration and the header
    of the weights are read."""
    weights = path / WEIGHTS
    if not weights.is_file():
        return (path / CARD).is_file()  # a model of ours without its weights
    try:
        with safe_open(weights, framework="numpy") as file:
            if (file.metadata() or {}).get("format", "pt") != "pt":
                return False
            names = file.keys()
        raw, where = find_config(path, None)
        if raw is None:
            return True
        if where != path / CONFIG:
            return False
        if raw.get("model_type", "bert") not in tuple(CONFIGURATIONS):
            return True
        try:
            config = model_config(raw, str(where))
        except CheckpointError:
            return "model_type" in raw  # else it may be that of another family, which the names tell
    except (SafetensorError, OSError, CheckpointError):
        return True
    return not is_encoder(config) or knows_names(config, names, other_head(raw) is not None)


def _identity(path: Path, read: ReadSection) -> str:
    """Changes when the checkpoint, its configuration or its tokenizer does: their names, sizes and times; or how it is read."""
    if path.is_dir():
        files = {file for file in path.rglob("*") if file.is_file()}
    else:
        stem = path.name.partition(".")[0]  # the files of one checkpoint begin alike
        files = {file for file in path.parent.iterdir() if file.is_file() and file.name.startswith(stem)}
    _, config = find_config(path, None)
    files |= {*find_tokenizer(path).values(), *([] if config is None else [config])}
    digest = hashlib.sha256(f"{_FORMAT}\0{path.resolve()}\0{read.model_dump_json()}{family_code()}".encode())
    for file in sorted(files):
        state = file.stat()
        digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]
