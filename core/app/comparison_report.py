"""A comparison as a page: one HTML file that opens offline."""

from __future__ import annotations

from typing import Any

from .comparison_view import dev_text, difference_rows, explained, group_rows, pair_rows
from .pages import page


def comparison_page(found: dict[str, Any]) -> str:
    """The page of a comparison."""
    groups, pairs, recipes = group_rows(found), pair_rows(found), difference_rows(found, None)
    content = {
        "found": found,
        "dev": dev_text(found["dev"]) if found["dev"] else "",
        "tables": [
            {"title": "Scores and costs", "heading": groups[0], "rows": groups[1], "left": 2, "about": ""},
            {"title": "Is the difference real?", "heading": pairs[0], "rows": pairs[1], "left": 2, "about": explained(found)},
            {"title": "In what the recipes differ", "heading": recipes[0], "rows": recipes[1], "left": 99, "about": ""},
        ],
        "better": [pair for pair in found["pairs"] if pair["better"]],
    }
    return page("comparison.html", content, {})
