"""The files by which sentence-transformers knows what a folder's model makes of its tokens' states: `modules.json`, a folder for
each module behind the encoder, and `sentence_bert_config.json`.

A model here is an encoder, a pooling (`core.models.pooling`) and perhaps a scaling to length 1. What is computed in any other way
is refused, and what only concerns the texts that a model is given (prompts) is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .json_files import read_json, read_object
from .models.pooling import Pooling
from .plain_names import is_plain_path
from .shown import shown

MODULES, TRANSFORMER, SENTENCES = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
_POOLING, _NORMALISE = "1_Pooling", "2_Normalize"
_PACKAGE = "sentence_transformers"
_CLASSES = f"{_PACKAGE}.models"
_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Key of a pooling's configuration, as versions before 5 write it -> what newer ones call that way."""
_OURS = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


def embeds(folder: Path) -> bool:
    """Whether a folder says how its model embeds texts."""
    return (folder / MODULES).is_file()


def sentence_files(folder: Path) -> dict[str, Path]:
    """Path in the folder -> file of those that say how its model embeds texts; none where it does not. Raises CheckpointError."""
    if not embeds(folder):
        return {}
    modules, names = read_json(folder / MODULES, CheckpointError), [MODULES, TRANSFORMER, SENTENCES]
    for module in modules if isinstance(modules, list) else ():
        place = module.get("path") if isinstance(module, dict) else None
        names += [f"{place}/config.json"] if is_plain_path(place) else []
    return {name: folder / name for name in names if (folder / name).is_file()}


def read_pooling(folder: Path, where: str = "") -> tuple[Pooling, list[str]]:
    """(how the model in a folder embeds texts, what its user should know). Raises CheckpointError, which `where` begins, for what
    is not computed here."""
    path, notes = folder / MODULES, []
    modules = read_json(path, CheckpointError)
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise CheckpointError(f"{where}{path}: expected a list of modules, got {shown(modules, 60)}")
    kinds = [_kind_of(module) for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        expected = "Transformer, Pooling and perhaps Normalize"
        raise CheckpointError(f"{where}{path}: its modules are {', '.join(kinds) or 'none'}; computed here are {expected}")
    if modules[0].get("path") not in ("", None):
        raise CheckpointError(f"{where}{path}: its Transformer is in {shown(modules[0]['path'])}, expected the folder itself")
    mode = _mode(folder, str(modules[1].get("path", _POOLING)), where)
    if (folder / TRANSFORMER).is_file():
        settings = read_object(folder / TRANSFORMER, CheckpointError)
        if settings.get("do_lower_case"):
            told = "do_lower_case is true: texts are made lower-case before the tokenizer, which is not done here"
            raise CheckpointError(f"{where}{folder / TRANSFORMER}: {told}")
    if (folder / SENTENCES).is_file():
        notes += _of_prompts(read_object(folder / SENTENCES, CheckpointError), f"{where}{folder / SENTENCES}")
    return Pooling(mode, len(kinds) == 3), notes


def _kind_of(module: Mapping[str, Any]) -> str:
    """The name of a module's class; with its package where that is not sentence-transformers' own, as of code beside a model."""
    package, _, kind = str(module.get("type", "")).rpartition(".")
    return kind if package.partition(".")[0] == _PACKAGE else shown(module.get("type"), 60)


def trained_length(folder: Path) -> int | None:
    """To how many tokens the folder's model cuts texts; None where it does not say. Raises CheckpointError."""
    if not (folder / TRANSFORMER).is_file():
        return None
    length = read_object(folder / TRANSFORMER, CheckpointError).get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise CheckpointError(f"{folder / TRANSFORMER}: max_seq_length: got {shown(length)}, expected a number of tokens")
    return length


def write_sentence_files(folder: Path, pooling: Pooling, width: int, length: int | None) -> None:
    """Write them into the folder of a model `width` wide whose texts are cut to `length` tokens, as all versions read them."""
    modules = [("", "Transformer"), (_POOLING, "Pooling"), *([(_NORMALISE, "Normalize")] if pooling.normalised else [])]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"{_CLASSES}.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    _write(folder / MODULES, listed)
    ours = {mode: own for own, mode in _OURS.items()}
    keys = {key: mode == ours[pooling.mode] for key, mode in _KEYS.items()}
    for path, _ in modules[1:]:
        (folder / path).mkdir(exist_ok=True)
    _write(folder / _POOLING / "config.json", {"word_embedding_dimension": width, **keys})
    if pooling.normalised:
        _write(folder / _NORMALISE / "config.json", {})
    _write(folder / TRANSFORMER, {**({} if length is None else {"max_seq_length": length}), "do_lower_case": False})
    _write(folder / SENTENCES, {"similarity_fn_name": "cosine"})


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _mode(folder: Path, place: str, where: str) -> str:
    """How the module in the folder `place` pools."""
    path = folder / place / "config.json"
    if place.startswith(("/", "..")) or not path.is_file():
        raise CheckpointError(f"{where}{path}: no such file, though {MODULES} names it")
    config = read_object(path, CheckpointError)
    modes = config.get("pooling_mode")
    if modes is None:
        for key in _KEYS:
            if not isinstance(config.get(key, False), bool):
                raise CheckpointError(f"{where}{path}: {key}: got {shown(config[key])}, expected true or false")
        modes = [mode for key, mode in _KEYS.items() if config.get(key)]
    modes = list(map(str, modes)) if isinstance(modes, list) else [str(modes)]
    if len(modes) != 1 or modes[0] not in _OURS:
        got, expected = ", ".join(modes) or "nothing", " or ".join(_OURS)
        raise CheckpointError(f"{where}{path}: pools by {got}; computed here is one of {expected}")
    return _OURS[modes[0]]


def _of_prompts(settings: Mapping[str, Any], where: str) -> list[str]:
    prompts = settings.get("prompts")
    named = {str(name): text for name, text in prompts.items() if text} if isinstance(prompts, dict) else {}
    default = settings.get("default_prompt_name")
    if default is not None and str(default) in named:
        told = f"default_prompt_name is {shown(default)}: each text gets {shown(named[default])} before it"
        raise CheckpointError(f"{where}: {told}, which is not done here; write it into the texts and set the key to null")
    if named:
        return [f"{where}: its prompts ({', '.join(map(shown, named))}) are for who calls the model; no text gets one here"]
    return []
