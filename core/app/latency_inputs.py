"""What `crossdistil latency` is given, checked before any process is started: models, texts, sizes and files to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...backends.registry import default_backend, interpreter
from ..checkpoint import Model
from ..data.tasks import read_split_texts, resolve_task
from ..engine import unheard
from ..errors import CrossdistilError
from ..registered import NOTHING, Registered
from .exported import exported_target, needs_framework
from .exporting import task_section
from .finished_model import load_user_model
from .given_texts import GivenTexts, check_columns, check_given, check_pairs, read_texts
from .sessions import Tell

PICTURES = (".png", ".svg", ".pdf")
_MOST = 4096
"""Of texts in a request, and of tokens in a text."""


@dataclass(frozen=True)
class Side:
    """A model that is measured."""

    name: str
    folder: Path
    backend: str | None
    """Whose engine or runtime runs it; None needs none."""
    model: Model

    @property
    def task(self) -> dict[str, Any]:
        """What it says of the task that it was trained on."""
        return self.model.about.get("task", {})


def check_options(
    file: Path | None,
    text_column: str | None,
    pair_column: str | None,
    encoding: str | None,
    data: Path | None,
    lengths: str | None,
    texts: int | None,
    requests: int | None,
    clock: str,
) -> bool:
    """Whether real texts are given. Raises CrossdistilError for options that do not go together."""
    given = [option for option, value in {"--lengths": lengths, "--file": file, "--data": data}.items() if value is not None]
    if len(given) > 1:
        raise CrossdistilError(f"{given[1]}: stands for other texts than {given[0]}; give one of them")
    check_columns(file, text_column, pair_column, encoding)
    if pair_column is not None and file is None:
        raise CrossdistilError("--pair-column: is a column of --file, which is not given")
    from_texts = file is not None or data is not None
    if texts is not None and not from_texts:
        raise CrossdistilError("--texts: is of --file or --data, and none is given")
    if requests is not None and from_texts:
        raise CrossdistilError("--requests: is of random tokens; with --file or --data each round has all texts")
    if clock not in ("wall", "cpu"):
        raise CrossdistilError(f"--clock {clock}: expected wall or cpu")
    return from_texts


def check_files(out: Path | None, picture: Path | None, overwrite: bool) -> None:
    """Raise CrossdistilError for files that cannot be written, before minutes are spent."""
    if overwrite and out is None and picture is None:
        raise CrossdistilError("--overwrite: is for --out and --picture, and none is given")
    for option, path in (("--out", out), ("--picture", picture)):
        if path is not None and path.exists() and (path.is_dir() or not overwrite):
            what = "is a folder" if path.is_dir() else "is there already; --overwrite replaces it"
            raise CrossdistilError(f"{option} {path}: {what}")
    if picture is not None and picture.suffix.lower() not in PICTURES:
        raise CrossdistilError(f"--picture {picture}: expected a name that ends in {', '.join(PICTURES)}")


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers of a list with commas, each once. Raises CrossdistilError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 and 1 <= int(word) <= _MOST for word in words):
        expected = f"whole numbers from 1 to {_MOST:,} with commas between them, like 1,32"
        raise CrossdistilError(f"{option} {text[:40]}: expected {expected}")
    return tuple(dict.fromkeys(map(int, words)))


def sides_of(folders: Sequence[Path], backend: str | None, precision: object | None) -> list[Side]:
    """The models of these folders, each loaded once to see that it can be. Raises CrossdistilError."""
    sides, names = [], _names(folders)
    for name, folder in zip(names, folders, strict=True):
        model, _ = load_user_model(folder, "latency", unheard)
        target = exported_target(folder)
        if target is None:
            with needs_framework(folder, backend):
                own = backend or default_backend()
                interpreter(own)
        elif (own := target.backend) is not None:
            interpreter(own)
        sides.append(Side(name, folder.absolute(), own, model))
    for side in sides[1:]:
        if side.model.kind.of_spans != sides[0].model.kind.of_spans:
            kinds = f"{sides[0].name} of {sides[0].model.kind.title}, {side.name} of {side.model.kind.title}"
            raise CrossdistilError(f"models are measured on the same texts, but {kinds}")
    for option, value in (("--backend", backend), ("--precision", precision)):
        if value is not None and all(exported_target(folder) is not None for folder in folders):
            raise CrossdistilError(f"{option}: is of models that are not exported, and none is given")
    return sides


def _names(folders: Sequence[Path]) -> list[str]:
    """What each model is called: its folder, or its run; the whole path where several are called the same."""
    absolute = [path.absolute() for path in folders]
    short = [path.parent.name if path.name == "student" else path.name for path in absolute]
    names = [name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CrossdistilError(f"{twice}: is given twice")
    return names


def check_lengths(sides: Sequence[Side], lengths: Sequence[int], what: str) -> None:
    """Raise CrossdistilError for a model that has no positions for so many tokens."""
    for side in sides:
        positions = getattr(side.model.config, "positions", max(lengths))
        if max(lengths) > positions:
            raise CrossdistilError(f"--lengths {max(lengths)}{what}: {side.folder} has only {positions} positions")


def texts_of(
    sides: Sequence[Side],
    given: tuple[Path | None, str | None, str | None, str | None],
    data: Path | None,
    count: int,
    tell: Tell,
    registered: Registered = NOTHING,
) -> GivenTexts:
    """The first `count` texts of a file, `given` with its columns of texts and second texts and its encoding, or of the dev split
    of the first model's task in the folder `data`, which may be `registered` by a plugin. All models read them: one of pairs that
    gets single texts is told of, one that cannot read them is refused."""
    first = sides[0]
    file, text, pair, encoding = given
    if file is None:
        section = task_section(first.folder, first.model, data, registered)
        examples = read_split_texts(resolve_task(section, registered), section.data, "dev")
        found = GivenTexts(examples.texts, examples.pairs)
        if first.model.kind.embeds and found.pairs is not None:  # pairs of texts that are embedded one by one
            found = GivenTexts([*found.texts, *found.pairs])
    else:
        found = read_texts(file, first.task, text, pair, None, encoding, first.model.kind)
    for note in found.notes:
        tell(f"warning: {note}")
    texts, pairs = list(found.texts[:count]), None if found.pairs is None else list(found.pairs[:count])
    check_given("text", texts)
    if pairs is not None:
        check_given("pair", pairs)
    for side in sides:
        check_pairs(side.folder, side.model, pairs, tell)
    return GivenTexts(texts, pairs)
