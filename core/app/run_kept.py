"""What a run's report shows of a teacher that is a file: what the student keeps of it, by class and by how sure the file is, and
what its answers cost beside the student's time."""

from __future__ import annotations

from typing import Any


def kept_content(teachers: dict[str, dict[str, Any]], milliseconds: float | None) -> list[dict[str, Any]]:
    """Of each teacher in result.json that is a file, what the page takes; `milliseconds` is the student's time for one text."""
    return [_file(name, found, milliseconds) for name, found in teachers.items() if found.get("file") and found.get("kept")]


def _file(name: str, found: dict[str, Any], milliseconds: float | None) -> dict[str, Any]:
    about, kept = found["file"], found["kept"]
    cost = about["per_thousand_texts"]
    money, read, written = (cost.get(key) for key in ("cost", "tokens_read", "tokens_written"))
    parts = [f"{money:,.2f}"] if money is not None else []
    if read is not None:
        parts.append(f"{read:,.0f} tokens read and {written or 0:,.0f} written")
    tables = []
    if kept.get("by_class"):
        tables.append(_table("By the file's class", "The file says", [{**row, "name": row["class"]} for row in kept["by_class"]]))
    if kept.get("by_confidence"):
        rows = [{**row, "name": f"{row['from']:.3f} to {row['to']:.3f}"} for row in kept["by_confidence"]]
        tables.append(_table("By the file's confidence", "How sure the file is", rows))
    return {
        "name": name,
        "path": about["file"],
        "rows": about["rows"],
        "texts": about["texts"],
        "silent": sum(about["abstained"].values()) + sum(about["other_labels"].values()),
        "kept": kept,
        "what": next((what for what in ("words", "questions") if what in kept), "texts"),
        "cost": ", ".join(parts),
        "milliseconds": milliseconds,
        "thousand": None if milliseconds is None else f"{milliseconds:,.1f} s",
        "tables": tables,
    }


def _table(caption: str, heading: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"caption": caption, "heading": heading, "rows": rows, "labelled": any("labelled" in row for row in rows)}
