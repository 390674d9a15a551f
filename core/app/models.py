"""Any checkpoint as a model folder that core can load: what is in another format is converted once, into the cache."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ...converters.configuration import find_config
from ..cached_teacher import card_of
from ..checkpoint import CARD, WEIGHTS
from ..config_file import CONFIG, model_config
from ..errors import CheckpointError, checkpoint_named
from ..hub_names import hub_folder
from ..models.architectures import CONFIGURATIONS, is_encoder, knows_names
from ..models.head_classes import other_head
from ..read_section import ReadSection
from .run_student import student_of


def model_folder(path: Path, where: str = "", read: ReadSection = ReadSection()) -> Path:
    """The canonical folder of the checkpoint at `path`: the path itself if it is one, or if nothing there is a checkpoint,
    about which core has its own errors. `where` names the recipe key that asked for it, `read` says what the checkpoint does not.
    Raises CheckpointError."""
    path = hub_folder(path, where or "model")
    with checkpoint_named(where):
        path = card_of(student_of(path))
    if read == ReadSection() and is_canonical(path):
        return path
    from .converted import converted_folder  # brings the readers of all formats, which a folder of ours needs none of

    return converted_folder(path, where, read)


def is_canonical(path: Path) -> bool:
    """Whether core reads this folder as it is: its container, its model type and its tensors' names are the canonical ones. What
    is damaged, or cannot be any model, counts as one, since core says what is wrong. Only the configuration and the header
    of the weights are read."""
    weights = path / WEIGHTS
    if not weights.is_file():
        return (path / CARD).is_file()  # a model of ours without its weights
    try:
        with safe_open(weights, framework="numpy") as file:
            if (file.metadata() or {}).get("format", "pt") != "pt":
                return False
            names = file.keys()
        raw, where = find_config(path, None)
        if raw is None:
            return True
        if where != path / CONFIG:
            return False
        if raw.get("model_type", "bert") not in tuple(CONFIGURATIONS):
            return True
        try:
            config = model_config(raw, str(where))
        except CheckpointError:
            return "model_type" in raw  # else it may be that of another family, which the names tell
    except (SafetensorError, OSError, CheckpointError):
        return True
    return not is_encoder(config) or knows_names(config, names, other_head(raw) is not None)
