"""Where the recipes of this package are."""

from pathlib import Path

RECIPES_FOLDER = Path(__file__).resolve().parent.parent / "recipes"
