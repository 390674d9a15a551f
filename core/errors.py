"""The errors a user can cause. The command line prints them without a traceback and exits with code 2."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

MESSAGE_PREFIX = "crossdistil: error: "
_ROW = re.compile(r"(.+?):(\d+): ")


class CrossdistilError(Exception):
    """Something the user gave is wrong; the message names the file or key, what was found and what was expected."""


class RecipeError(CrossdistilError):
    """All problems of one recipe, each as `path.to.key: what is wrong`."""

    def __init__(self, source: str, problems: Sequence[str]):
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


class DataError(CrossdistilError):
    """A data file that is missing, or that does not hold what the task needs."""


class CheckpointError(CrossdistilError):
    """A model folder that is missing, damaged or of the wrong shape."""


class BackendError(CrossdistilError):
    """A backend, device or precision that is not available."""


class TrainingError(CrossdistilError):
    """Training cannot go on: the loss is not finite, or the saved state does not fit the recipe."""


class RunFolderError(CrossdistilError):
    """An output folder that is in use by another run or cannot be written."""


class PluginError(CrossdistilError):
    """A plugin that cannot be loaded, or whose code fails; the message names its file and line."""


class DamagedCache(CrossdistilError):
    """A teacher cache that is not as it was written; a new one can take its place."""


@contextlib.contextmanager
def checkpoint_named(where: object) -> Iterator[None]:
    """Puts `where`, a file or the recipe's key of a model, in front of each line of an error about a checkpoint; where it is
    empty, nothing."""
    prefix = f"{where}: " if str(where) else ""
    try:
        yield
    except CrossdistilError as error:
        raise CheckpointError("\n".join(prefix + line for line in str(error).splitlines())) from error


class Errors(list):
    """What was found wrong so far, in order to tell all of it at once."""

    def collect(self, function: Callable, *arguments):
        """The function's result, or None if it raises an error of the user's, which is kept."""
        try:
            return function(*arguments)
        except CrossdistilError as error:
            self.append(error)
            return None

    def throw(self) -> None:
        """Raise what was kept, several errors as one with a line for each; what two parts found is told once, and what is wrong
        with rows of a file in their order."""
        different = _by_row(list(dict.fromkeys(line for error in self for line in str(error).splitlines())))
        if self:
            raise self[0] if len(self) == 1 or len(different) == 1 else CrossdistilError("\n".join(different))


def _by_row(lines: list[str]) -> list[str]:
    """Lines that begin with one and the same `FILE:ROW: ` in the order of the rows, in the places that such lines have."""
    places: dict[str, list[int]] = {}
    rows: dict[int, int] = {}
    for place, line in enumerate(lines):
        found = _ROW.match(line)
        if found:
            places.setdefault(found[1], []).append(place)
            rows[place] = int(found[2])
    ordered = list(lines)
    for same in places.values():
        for place, source in zip(same, sorted(same, key=rows.__getitem__)):
            ordered[place] = lines[source]
    return ordered


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest of `choices`, or an empty string when none is near."""
    known = [str(choice) for choice in choices]
    near = [choice for choice in known if choice.casefold() == str(word).casefold()]
    near = near or difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
