"""What every augmentation gives: changed copies of examples, none of which the data or an earlier copy already is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

Report = Callable[[int, int], None]
"""`report(done, total)`: how many of the examples have been augmented."""


class Copy(NamedTuple):
    """A changed copy of example `row`, whose label it takes over."""

    row: int
    text: str
    pair: str | None


def new_copies(texts: Sequence[str], pairs: Sequence[str] | None, copies: Iterable[Copy]) -> Iterator[Copy]:
    """Those copies that equal neither an example of the data nor a copy before them; white space does not count."""
    originals = zip(texts, [None] * len(texts) if pairs is None else pairs)
    seen = {_digest(text, pair) for text, pair in originals}
    for copy in copies:
        digest = _digest(copy.text, copy.pair)
        if digest not in seen:
            seen.add(digest)
            yield copy


def _digest(text: str, pair: str | None) -> bytes:
    # Millions of copies: 16 bytes each instead of their texts. Tabs keep the two texts of a pair apart.
    joined = "\t".join(" ".join(part.split()) for part in (text, pair or ""))
    return hashlib.blake2b(joined.encode("utf-8"), digest_size=16).digest()
