"""How sentence-transformers knows a folder's model as a CrossEncoder, and what it makes of the model's one number: a classifier
of one output, whose `config.json` or `config_sentence_transformers.json` names the activation behind it, a sigmoid where nothing
does.

Here a score is the output itself. So does a folder that is written here say, and so do other users get the same scores; of a
folder with another activation that is told, since the order is the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .json_files import read_object
from .sentence_folder import SENTENCES
from .shown import plain

_SECTION, _ACTIVATION, _OLD = "sentence_transformers", "activation_fn", "sbert_ce_default_activation_function"
_IDENTITY = "torch.nn.modules.linear.Identity"
_TOKENIZER, _LENGTH = "tokenizer_config.json", "model_max_length"
_MOST = 1 << 20
"""What transformers writes where a tokenizer has no limit is far above."""


def is_cross_encoder(folder: Path, raw: dict[str, Any]) -> bool:
    """Whether a folder with this content of config.json says that it is one."""
    if _SECTION in raw or _OLD in raw:
        return True
    return (folder / SENTENCES).is_file() and _settings(folder).get("model_type") == "CrossEncoder"


def activation_note(folder: Path, raw: dict[str, Any]) -> str | None:
    """What to know of the activation that sentence-transformers puts behind the scores; None where it is none."""
    name, section = None, raw.get(_SECTION)
    if (folder / SENTENCES).is_file():  # of newer versions, which read it first
        name = _settings(folder).get(_ACTIVATION)
    if name is None:
        name = section.get(_ACTIVATION) if isinstance(section, dict) else raw.get(_OLD)
    name = "Sigmoid" if name is None else plain(str(name).rpartition(".")[2])
    if name == "Identity":
        return None
    return f"{folder}: scores are the model's logits; sentence-transformers puts {name} behind them, which keeps their order"


def longest_input(folder: Path) -> int | None:
    """To how many tokens sentence-transformers cuts what such a model reads; None where the folder does not say it."""
    path = folder / _TOKENIZER
    length = read_object(path, CheckpointError).get(_LENGTH) if path.is_file() else None
    return length if type(length) is int and 4 <= length < _MOST else None


def cross_encoder_entry() -> dict[str, Any]:
    """What config.json of a model says whose scores are its outputs."""
    return {_SECTION: {_ACTIVATION: _IDENTITY}}


def write_longest_input(folder: Path, length: int) -> None:
    """Write into a folder's tokenizer to how many tokens its model was trained."""
    path = folder / _TOKENIZER
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**content, _LENGTH: length}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _settings(folder: Path) -> dict[str, Any]:
    return read_object(folder / SENTENCES, CheckpointError)
