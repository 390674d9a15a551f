"""Names of the Hugging Face hub where a folder is expected: `hf:OWNER/NAME` is its snapshot, from the hub's cache or the network.
Any other name is a path; where there is nothing, the error says how a name of the hub is meant, or downloaded.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

from .errors import CheckpointError, DataError
from .extras import require
from .shown import plain

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_FILES = (".bin", ".ckpt", ".h5", ".index", ".json", ".npz", ".pkl", ".pt", ".pth", ".safetensors", ".txt")


HUB = "hf:"
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "pytorch_model*.bin")
_DATA_FILES = ("*.parquet", "*.tsv", "*.csv", "*.jsonl", "*.json", "*.txt", "*.arrow")


def is_hub_name(path: object) -> bool:
    """Whether this is a name of the hub, and no path."""
    return str(path).startswith(HUB)


def hub_folder(path: Path, where: str, data: bool = False) -> Path:
    """The folder of a snapshot of `hf:OWNER/NAME`, or of `hf:OWNER/NAME@REVISION`; any other path as it is. It is downloaded into
    the cache of Hugging Face's libraries where it is not there; with HF_HUB_OFFLINE=1 nothing is asked of the network. `where`
    names the recipe's key. Raises CheckpointError, or DataError for `data`."""
    if not is_hub_name(path):
        return path
    require("hub", where)
    import huggingface_hub

    kind = DataError if data else CheckpointError
    name, _, revision = str(path).removeprefix(HUB).partition("@")
    if not all(map(_NAME.fullmatch, name.split("/"))) or name.count("/") > 1:
        raise kind(f"{where}: {plain(str(path))}: expected {HUB}OWNER/NAME")
    try:
        found = huggingface_hub.snapshot_download(
            name,
            repo_type="dataset" if data else "model",
            revision=revision or None,
            allow_patterns=list(_DATA_FILES if data else _MODEL_FILES),
        )
    except Exception as error:  # the client's errors share no base but this
        folder = f"{'data' if data else 'models'}/{name.rpartition('/')[2]}"
        what = "--repo-type dataset " if data else ""
        way = f"on a machine with a network: hf download {what}{name} --local-dir {folder}; then give {folder} here"
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            problem = "is not in the hub's cache, and with HF_HUB_OFFLINE nothing is asked of the network"
        else:
            reason = textwrap.shorten(str(error), 200, placeholder=" ...") or type(error).__name__
            problem = f"is neither in the hub's cache nor to be had from the hub ({plain(reason)})"
        raise kind(f"{where}: {path}: {problem}; {way}") from error
    return Path(found)


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
