"""What a folder holds, in words."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def folders_for_files(folder: Path, names: Iterable[str]) -> str:
    """Which of these names, of files that may be wanted, are those of folders in it; empty where none is."""
    found = next((folder / name for name in names if (folder / name).is_dir()), None)
    return "" if found is None else f"{found}: is a folder, expected a file"


def folder_contents(folder: Path) -> str:
    """What a folder holds, for errors about a file that is not in it."""
    if not folder.is_dir():
        return f"{folder} is a file" if folder.exists() else f"the folder {folder} does not exist"
    names = sorted(entry.name for entry in folder.iterdir())
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"the folder holds {shown}" if names else "the folder is empty"
