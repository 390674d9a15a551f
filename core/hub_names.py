"""Names of the Hugging Face hub where a folder is expected: nothing is downloaded here, but the error says how it is done."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_FILES = (".bin", ".ckpt", ".h5", ".index", ".json", ".npz", ".pkl", ".pt", ".pth", ".safetensors", ".txt")


def hub_hint(path: Path) -> str:
    """What to add to the error about a folder that is not there, where its name may be one of the hub: the command that makes
    it a folder, or where the cache of Hugging Face's libraries has it. Empty where it cannot be one."""
    path = Path(path)
    if path.is_absolute():
        if not path.is_relative_to(Path.cwd()):
            return ""
        path = path.relative_to(Path.cwd())
    parts = path.parts
    if not 1 <= len(parts) <= 2 or not all(map(_NAME.fullmatch, parts)) or path.suffix in _FILES:
        return ""
    if path.exists() or (len(parts) == 2 and Path(parts[0]).exists()):
        return ""
    name = "/".join(parts)
    cached = _cached(name)
    if cached is not None:
        return f"; the Hugging Face cache has it: {cached}"
    folder = f"models/{parts[-1]}"
    return f"; if it is a name of the Hugging Face hub: hf download {name} --local-dir {folder}, then give {folder}"


def _cached(name: str) -> Path | None:
    """The newest snapshot of a model in the cache of `huggingface_hub`, if there is one."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "huggingface"
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home) / "hub")
    # Old names of one part belong to an organisation today: bert-base-uncased is google-bert/bert-base-uncased.
    patterns = [f"models--{name.replace('/', '--')}", *([] if "/" in name else [f"models--*--{name}"])]
    found = [file for pattern in patterns for file in hub.glob(f"{pattern}/snapshots/*/config.json")]
    return max(found, key=lambda file: file.stat().st_mtime).parent if found else None
