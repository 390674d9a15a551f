"""What a teacher cache is of: the digests of a teacher and of the rows it was given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from .checkpoint import Model
from .data.token_table import TokenTable

FORMAT = 1


@dataclass(frozen=True)
class CacheKey:
    """What a cache is of."""

    teacher: str
    """Digest of the teacher's configuration and weights."""
    tokens: str
    """Digest of the rows as the teacher takes them: data, tokenizer and length."""
    outputs: tuple[str, ...]
    precision: str
    """What the numbers are stored in."""
    computed_in: str
    """What the teacher computed in."""

    def as_json(self) -> dict:
        """The content of identity.json."""
        return {
            "format": FORMAT,
            "teacher": self.teacher,
            "tokens": self.tokens,
            "outputs": list(self.outputs),
            "precision": self.precision,
            "computed_in": self.computed_in,
        }

    @property
    def digest(self) -> str:
        """A name for the folder."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:32]


def model_digest(model: Model) -> str:
    """SHA-256 of a model's configuration and weights."""
    digest = hashlib.sha256(model.config.model_dump_json().encode())
    for name in sorted(model.parameters):
        array = np.ascontiguousarray(model.parameters[name])
        digest.update(f"{name} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def tokens_digest(table: TokenTable) -> str:
    """SHA-256 of the rows of a token table."""
    digest = hashlib.sha256(f"{table.pad_id} {table.apart}".encode())
    for array in (table.ids, table.offsets, table.first_lengths):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
