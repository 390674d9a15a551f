"""The files that docs/plugins.md shows, by name."""

from __future__ import annotations

import re
from pathlib import Path

import crossdistil

PAGE = (Path(crossdistil.__file__).parent / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def write_shown(folder: Path, *names: str) -> list[str]:
    """Write files that the page shows into a folder; returns their paths."""
    texts = {text.partition("\n")[0].removeprefix("# "): text for language, text in BLOCKS if language != "sh"}
    for name in names:
        (folder / name).write_text(texts[name], encoding="utf-8")
    return [str(folder / name) for name in names]
