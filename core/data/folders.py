"""What a folder holds, in words."""

from __future__ import annotations

from pathlib import Path


def folder_contents(folder: Path) -> str:
    """What a folder holds, for errors about a file that is not in it."""
    if not folder.is_dir():
        return f"{folder} is a file" if folder.exists() else f"the folder {folder} does not exist"
    names = sorted(entry.name for entry in folder.iterdir())
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"the folder holds {shown}" if names else "the folder is empty"
