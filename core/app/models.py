"""Any checkpoint as a model folder that core can load: what is in another format is converted once, into the cache."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ...converters.configuration import find_config, find_tokenizer
from ...converters.convert import ConvertOptions, convert
from ...converters.formats import is_checkpoint
from ..cache_folder import kind_folder
from ..checkpoint import WEIGHTS
from ..errors import CrossdistilError, Errors, checkpoint_named
from ..locks import hold_folder
from ..recipe import Recipe


def model_folder(path: Path, where: str = "") -> Path:
    """The canonical folder of the checkpoint at `path`: the path itself if it is one, or if nothing there is a checkpoint,
    about which core has its own errors. `where` names the recipe key that asked for it. Raises CheckpointError."""
    if _is_canonical(path) or not is_checkpoint(path):
        return path
    with checkpoint_named(where):
        folder = kind_folder("converted") / _identity(path)
        while not hold_folder(folder):  # from now on, or another process might remove it before it is read
            _convert(path, folder)
    return folder


def _convert(path: Path, folder: Path) -> None:
    try:
        convert(path, folder, ConvertOptions("pytorch"))
    except CrossdistilError:
        if not folder.is_dir():  # else another process was faster
            raise


@contextlib.contextmanager
def told_as_given(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """Errors about folders in the cache, which no user knows, name the paths that were given. `pairs` are (given, folder)."""
    try:
        yield
    except CrossdistilError as error:
        text = str(error)
        for given, folder in pairs:
            text = text.replace(str(folder), str(given))
        error.args = (text,)
        raise


def model_paths(recipe: Recipe) -> list[Path]:
    """Every model that a recipe names."""
    init = recipe.student.init.source
    paths = [section.model for section in recipe.all_teachers.values()]
    return paths + ([] if init in ("teacher", "random") else [Path(init)])


def with_model_folders(recipe: Recipe) -> Recipe:
    """The recipe with the canonical folders of its models in place of checkpoints of other formats."""
    changes, errors = {}, Errors()
    if recipe.teacher is not None:
        folder = errors.collect(model_folder, recipe.teacher.model, "teacher.model")
        changes["teacher"] = recipe.teacher.model_copy(update={"model": folder})
    if recipe.teachers:
        changes["teachers"] = {
            name: section.model_copy(update={"model": errors.collect(model_folder, section.model, f"teachers.{name}.model")})
            for name, section in recipe.teachers.items()
        }
    init = recipe.student.init
    if init.source not in ("teacher", "random"):
        folder = errors.collect(model_folder, Path(init.source), "student.init.from")
        changes["student"] = recipe.student.model_copy(update={"init": init.model_copy(update={"source": str(folder)})})
    errors.throw()
    return recipe.model_copy(update=changes)


def _is_canonical(path: Path) -> bool:
    weights = path / WEIGHTS
    if not weights.is_file():
        return False
    try:
        with safe_open(weights, framework="numpy") as file:
            return (file.metadata() or {}).get("format", "pt") == "pt"
    except (SafetensorError, OSError):
        return True  # damaged: core says so


def _identity(path: Path) -> str:
    """Changes when the checkpoint, its configuration or its tokenizer does: their names, sizes and times."""
    if path.is_dir():
        files = {file for file in path.rglob("*") if file.is_file()}
    else:
        stem = path.name.partition(".")[0]  # the files of one checkpoint begin alike
        files = {file for file in path.parent.iterdir() if file.is_file() and file.name.startswith(stem)}
    _, config = find_config(path, None)
    files |= {*find_tokenizer(path).values(), *([] if config is None else [config])}
    digest = hashlib.sha256(str(path.resolve()).encode())
    for file in sorted(files):
        state = file.stat()
        digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]
