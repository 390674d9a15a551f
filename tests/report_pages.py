"""Reading the pages of reports: their tables, and what every page has to be like."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.predictions import rows_digest
from crossdistil.core.task_section import TaskSection

VOID = {"meta", "br", "use", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """The tables of a page by caption, its tags, and whether every element is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.titles: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes), "scroll" in self._classes()))
        if tag not in VOID:
            self.open.append(tag)
            self._stack.append(dict(attributes).get("class") or "")
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    _stack: list[str]

    def reset(self):
        super().reset()
        self._stack = []

    def _classes(self) -> set[str]:
        return {name for classes in self._stack for name in classes.split()}

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes), "scroll" in self._classes()))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()
        self._stack.pop()

    def handle_data(self, text):
        if self.open and self.open[-1] == "caption":
            self.tables[text] = self._rows
        elif {"td", "th"} & set(self.open):
            self._rows[-1][-1] += text
        if "text" in self.open and "title" in self._classes():
            self.titles.append(text)


def task_of(folder: Path, texts, labels, names=("negative", "positive")) -> tuple[Path, str]:
    """A task folder with those dev rows, and their digest."""
    folder.mkdir()
    rows = [{"sentence": text, "label": int(label)} for text, label in zip(texts, labels, strict=True)]
    lines = ["sentence\tlabel"] + [f"{row['sentence']}\t{row['label']}" for row in rows]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = resolve_task(TaskSection(name="sst-2", data=folder, max_length=16))
    return folder, rows_digest(spec, read_split(spec, folder, "dev"))


def assert_stacked(text: str, count: int) -> None:
    style = text[text.index("<style>") : text.index("</style>")]
    narrow = style[style.index("On a phone") :]
    assert all(rule in narrow for rule in (".stack thead { display: none; }", "content: attr(data-of)", "white-space: normal"))
    tables = re.findall(r'<table class="[^"]*stack">(.*?)</table>', text, re.DOTALL)
    assert len(tables) >= count
    for table in tables:
        headings = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", table, re.DOTALL)]
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table.partition("</thead>")[2], re.DOTALL):
            cells = re.findall(r"<(t[dh])([^>]*)>(.*?)</t[dh]>", row, re.DOTALL)
            assert len(cells) == len(headings)
            for heading, (tag, attributes, content) in zip(headings, cells):
                if tag == "td" and "long" not in attributes and content:
                    assert f'data-of="{heading}"' in attributes, (heading, attributes)
