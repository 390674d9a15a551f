"""The tokenizers library panics on some files: it writes a page to standard error and raises what is no Exception."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError
from ..shown import plain


def is_panic(error: BaseException) -> bool:
    """Whether Rust code panicked; its type cannot be imported."""
    return type(error).__name__ == "PanicException"


@contextlib.contextmanager
def panics_told(source: Path) -> Iterator[None]:
    """Turns a panic into a CheckpointError about the tokenizer in the file `source`."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise CheckpointError(f"{source}: the tokenizers library cannot work with it: {plain(str(error))}") from None


@contextlib.contextmanager
def quiet_panics(source: Path) -> Iterator[None]:
    """The same without the page, for a short time: nothing else is written to standard error either."""
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed
        kept = None
    try:
        if kept is not None:
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), 2)
        with panics_told(source):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)
