"""Whether the second text of a pair has a token type of its own, by what stands beside a tokenizer: its own file tells which type
it would have, others whether a model is given any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, processors

from ..errors import CheckpointError
from ..json_files import read_object
from .special_places import BERTS, CONFIG, around_berts

MODEL = "config.json"
TYPES = "token_type_ids"
_WITHOUT_TYPES = "DistilBertTokenizer"
"""The class that gives no types though its post-processor is BERT's."""
_UNLIKE = ("AlbertTokenizer", "PreTrainedTokenizer", "TokenizersBackend")
"""Those whose pairs have types in transformers 4 and none in 5."""


def leave_types_out(library: tokenizers.Tokenizer, folder: Path, config: Mapping[str, Any]) -> str | None:
    """Give all of a pair token type 0 where the files in `folder` want it; `config` is its tokenizer_config.json. Returns why,
    or None where nothing changes.

    Either `model_input_names` or the tokenizer's class leaves token types out, as in transformers, or the model beside the
    tokenizer has one type only, with which transformers fails. For a model without types nothing changes: it reads the same
    tokens either way."""
    path, names = folder / MODEL, config.get("model_input_names")
    rows = read_object(path, CheckpointError).get("type_vocab_size", 0) if path.is_file() else None
    reason = f"type_vocab_size of {MODEL} is 1" if rows == 1 else None
    if reason is None and rows != 0 and isinstance(names, list) and names and TYPES not in names:
        reason = f"model_input_names of {CONFIG} has no {TYPES}"
    if reason is None and rows and names is None and class_name(config) == _WITHOUT_TYPES:
        reason = f"tokenizer_class of {CONFIG} is {_WITHOUT_TYPES}"
    if reason is None:
        return None
    processor = library.post_processor
    if processor is None and isinstance(library.model, models.WordPiece):
        vocabulary = library.get_vocab(with_added_tokens=True)
        processor = around_berts(vocabulary) if all(token in vocabulary for token in BERTS) else None
    state = None if processor is None else json.loads(processor.__getstate__())
    if (changed := _untyped(state)) == state:
        return None
    empty = json.loads(tokenizers.Tokenizer(models.BPE()).to_str())
    library.post_processor = tokenizers.Tokenizer.from_str(json.dumps({**empty, "post_processor": changed})).post_processor
    return reason


def class_name(config: Mapping[str, Any]) -> str:
    """The class of a tokenizer by its tokenizer_config.json, without the mark of fast ones; empty where none is said."""
    name = config.get("tokenizer_class")
    return name.removesuffix("Fast") if isinstance(name, str) else ""


def left_to_versions(folder: Path, config: Mapping[str, Any]) -> str:
    """The class of a tokenizer whose pairs have token types in transformers 4 and none in 5, where its files do not name what a
    model gets; an empty string where all versions agree."""
    name, path = class_name(config), folder / MODEL
    if config.get("model_input_names") is not None:
        return ""
    if not name and path.is_file() and read_object(path, CheckpointError).get("model_type") == "albert":
        return _UNLIKE[0]
    return config["tokenizer_class"] if name in _UNLIKE else ""


def gives_types(config: Mapping[str, Any]) -> bool:
    """Whether all versions of transformers give a model token types with a tokenizer, by its tokenizer_config.json."""
    names = config.get("model_input_names")
    return TYPES in names if isinstance(names, list) else class_name(config) == "BertTokenizer"


def _untyped(state: Any) -> Any:
    """The JSON of a post-processor, or of a part of it, with type 0 everywhere."""
    if isinstance(state, list):
        return [_untyped(part) for part in state]
    if not isinstance(state, dict):
        return state
    if state.get("type") == "BertProcessing":
        (end, end_id), (begin, begin_id) = state["sep"], state["cls"]
        made = processors.TemplateProcessing(
            single=f"{begin} $A {end}", pair=f"{begin} $A {end} $B {end}", special_tokens=[(begin, begin_id), (end, end_id)]
        )
        return json.loads(made.__getstate__())
    return {key: 0 if key == "type_id" else _untyped(value) for key, value in state.items()}
