"""Writes docs/reference/ from what the program itself says: the recipe's sections, the command line, the losses, the operations;
and the facts of each page in docs/methods/, from its recipe and the kept results.

    python docs/generator/reference.py [--check]

`--check` writes nothing; the exit code is 1 if a page is not what the code says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from command_page import command_page
from loss_page import loss_page
from method_facts import FOLDER as METHODS
from method_facts import filled
from operation_page import operation_page
from recipe_page import recipe_page

FOLDER = Path(__file__).resolve().parent.parent / "reference"
PAGES = {"recipe.md": recipe_page, "commands.md": command_page, "losses.md": loss_page, "ops.md": operation_page}
"""File -> what writes it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page differs")
    check = parser.parse_args().check
    differing = []
    texts = {FOLDER / name: page() for name, page in PAGES.items()}
    texts |= {path: filled(path.read_text(encoding="utf-8")) for path in sorted(METHODS.glob("*.md"))}
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            differing.append(f"{path.parent.name}/{path.name}")
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and differing:
        sys.exit(f"docs: {', '.join(differing)}: not what the code says; `make docs` writes them")
    print(f"written: {', '.join(differing)}" if differing else "up to date")


if __name__ == "__main__":
    main()
