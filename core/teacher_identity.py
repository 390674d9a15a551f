"""What a teacher cache is of: the digests of a teacher and of the rows it was given."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from .cache_folder import kind_folder
from .checkpoint import Model
from .errors import CrossdistilError
from .files import write_text
from .json_files import read_object
from .stored_tensors import AbsentTensors, FileState, StoredTensors
from .task_data import MISMATCHED, TaskData

FORMAT = 2
"""From here on the outputs of one teacher share a folder, and each is whole or not by itself."""


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
    top_k: int | None = None
    """How many of the largest logits are kept; None: all."""

    def as_json(self) -> dict:
        """The content of identity.json: all but which outputs there are."""
        return {
            "format": FORMAT,
            "teacher": self.teacher,
            "tokens": self.tokens,
            "precision": self.precision,
            "computed_in": self.computed_in,
        }

    @property
    def digest(self) -> str:
        """A name for the folder."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:32]


def model_digest(model: Model) -> str:
    """SHA-256 of a model's configuration and weights. That of an unchanged file is remembered in the cache folder."""
    parameters = model.parameters
    if isinstance(parameters, AbsentTensors):
        return parameters.digest
    if not isinstance(parameters, StoredTensors) or parameters.state is None:
        return _computed_digest(model)
    key = _remembered_by(model, parameters.state)
    path = kind_folder("digests") / f"{hashlib.sha256(str(parameters.state.path).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, CrossdistilError):
        found = read_object(path, CrossdistilError)
        if found.get("key") == key and isinstance(found.get("digest"), str):
            return found["digest"]
    digest = _computed_digest(model)
    if parameters.state.holds() and parameters.state.is_settled():
        with contextlib.suppress(OSError, CrossdistilError):  # then it is computed each time
            write_text(path, json.dumps({"file": str(parameters.state.path), "key": key, "digest": digest}, indent=2) + "\n")
    return digest


def _remembered_by(model: Model, state: FileState) -> str:
    """Changes where the digest might: with the file's inode, size and times, the configuration, and which tensors are taken.
    The time of the last change of any kind is among the times: that of the content can be set back by hand, this one not."""
    names = sorted((name, list(model.parameters.shape(name))) for name in model.parameters)
    stamp = [state.inode, state.size, state.modified_ns, state.changed_ns]
    content = json.dumps([FORMAT, stamp, _architecture(model), names])
    return hashlib.sha256(content.encode()).hexdigest()


def _architecture(model: Model) -> str:
    """The configuration, of a plugin's family its code, and how texts are embedded: what decides what is computed."""
    pooling = getattr(model.config, "pooling", None)
    return model.config.model_dump_json() + model.config.code + ("" if pooling is None else f"pooling: {pooling}")


def _computed_digest(model: Model) -> str:
    digest = hashlib.sha256(_architecture(model).encode())
    for name in sorted(model.parameters):
        array = np.ascontiguousarray(model.parameters[name])
        digest.update(f"{name} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def examples_digest(data: TaskData, precision: str) -> str:
    """SHA-256 of what decides a model's scores on dev, but for the model: texts, labels, metrics, and what is computed in."""
    digest = hashlib.sha256(f"{precision} {data.spec.metrics}".encode())
    for split in ("dev", MISMATCHED):
        if split in data.examples:
            digest.update(f"{split} {data.tokens[split].digest}".encode())
            labels = data.examples[split].labels
            digest.update(b"" if labels is None else np.ascontiguousarray(labels).data)
    return digest.hexdigest()
