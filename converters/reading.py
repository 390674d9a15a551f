"""What a user decides about a checkpoint that is not quite as it should be: options of every command that reads one."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import CheckpointError


@dataclass(frozen=True)
class ReadOptions:
    """What the user decided about a checkpoint that does not quite fit."""

    config: Path | None = None
    """The configuration, where none lies beside the checkpoint."""
    allow_missing: tuple[str, ...] = ()
    """Patterns of canonical names that may be missing, as in a shell: `cls.*`."""
    allow_extra: tuple[str, ...] = ()
    """Patterns of the checkpoint's own names that are left out where the model has no place for them."""
    fix_config: bool = False
    """Take the tensors' sizes where the configuration has others."""
    prefix: str | None = None
    """What the names of the model start with; None finds it."""
    rename: tuple[str, ...] = ()
    """`PATTERN=NAME`: tensors are read as if the file had them under other names. Each `*` in NAME is what the `*` at its
    place in PATTERN stands for, as in `fc.*=classifier.*`."""
    ema: bool = False
    """Read the moving averages of the weights instead of the weights."""
    successor: bool = False
    """Of a training by replacement (BERT-of-Theseus) read the successor."""

    def as_json(self) -> dict[str, Any]:
        """Plain data, for another process."""
        return asdict(self) | {"config": None if self.config is None else str(self.config.absolute())}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> ReadOptions:
        """The inverse of `as_json`."""
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return cls(**values | {"config": None if given["config"] is None else Path(given["config"])})


def allowed(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that match one of the patterns."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def renamed(names: Iterable[str], renames: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """(name in the file -> name that it is read under, names that one of `renames` fits, of which the first is taken). Raises
    CheckpointError for one that fits no name, is no `PATTERN=NAME`, or makes two names the same."""
    found = {name: name for name in names}
    rules = [_rename(given) for given in renames]
    used, touched = set(), set()
    for name in found if rules else ():
        for index, (pattern, parts) in enumerate(rules):
            if match := pattern.fullmatch(name):
                found[name] = parts[0] + "".join(text + part for text, part in zip(match.groups(), parts[1:]))
                used.add(index)
                touched.add(name)
                break
    for index, given in enumerate(renames):
        if index not in used:
            raise CheckpointError(f"--rename {given}: no tensor has a name like {given.rpartition('=')[0]}")
    by_name: dict[str, str] = {}
    for name, other in found.items():
        if by_name.setdefault(other, name) != name:
            raise CheckpointError(f"--rename {', '.join(renames)}: {by_name[other]} and {name} would both be {other}")
    return found, touched


def _rename(given: str) -> tuple[re.Pattern[str], list[str]]:
    """What a name must be, and the parts of the new one around what the stars stand for."""
    pattern, equals, name = given.rpartition("=")
    if not (equals and pattern and name):
        raise CheckpointError(f"--rename {given}: expected PATTERN=NAME, for example fc.*=classifier.*")
    if name.count("*") > pattern.count("*"):
        raise CheckpointError(f"--rename {given}: NAME has more * than PATTERN, of which each stands for what was there")
    return re.compile("(.*)".join(map(re.escape, pattern.split("*")))), name.split("*")
