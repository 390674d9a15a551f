"""README and docs/ hold no figure that somebody measured and typed: what has a unit stands in a generated table or output, which
tests compare with the kept results, or it is a limit, a default or an example, and is listed here."""

from __future__ import annotations

import re

import pytest

from crossdistil.tests.doc_commands import ROOT, pages

GENERATED = re.compile(r"<!-- (results|method):begin .*?<!-- \1:end [^\n]*", re.DOTALL)
NUMBER = r"(?<![\w.$/=-])[-+]?\d[\d.,]*(?: (?:to|or) \d[\d.,]*)?"
UNIT = r"(?:%|ms|µs|s|seconds?|minutes?|hours?|[kMGT]i?B(?:/s)?|points?|x|times|(?:tokens|texts)/s|秒|毫秒|分钟|小时|倍)"
COUNTED = r"\b(?:two|three|four|five|ten|twice|half)(?: times)? (?:as (?:fast|small|large|much)|faster|slower|smaller|larger)"
FIGURE = re.compile(rf"{NUMBER}\s?{UNIT}(?![\w/])(?! \d)|{COUNTED}")
ALLOWED = {
    # Limits and defaults of the program.
    "docs/conversion.md": ["16 times"],
    "docs/export.md": ["99 %", "0.5 points", "four times smaller"],  # a byte in place of four
    "docs/large_corpora.md": ["32 MiB"],
    "docs/raw_text.md": ["15 %"],
    "docs/recipes.md": ["5 %"],
    "docs/serving.md": ["1 MiB", "64 times", "64 MiB", "40s"],  # the last of an example for nginx
    "docs/several_devices.md": ["5 minutes", "30 seconds", "2 minutes", "5 minutes"],
    # Points of a grid, limits in examples, a byte in place of four.
    "docs/search.md": ["18 points", "2ms", "20MB", "four times smaller"],
    "docs/training_options.md": ["0.1 points"],
    "docs/tutorial.md": ["four times smaller"],
    # Arithmetic.
    "recipes/MIGRATION.md": ["15 %"],
}
"""Page -> its figures outside of what is generated, in their order."""


@pytest.mark.parametrize("path", [each for each in pages() if "reference" not in each.parts], ids=lambda path: path.name)
def test_every_figure_is_generated(path):
    text = GENERATED.sub("", path.read_text(encoding="utf-8"))
    found = [each[0] for each in FIGURE.finditer(text)]
    assert found == ALLOWED.get(str(path.relative_to(ROOT)), []), "what was measured: benchmarks/pages.py; a limit: ALLOWED"


SPEEDS = ["takes 7.6 s for 20", "ready after 0.4 s;", "in 12 minutes.", "8,000 tokens/s", "115 MB/s", "a speed-up of 1.9x"]
OTHERS = ["190 MB for", "accuracy 80.25%", "2.5 times the text", "+16.67 points,", "is twice as fast", "3 倍"]


@pytest.mark.parametrize("text", SPEEDS + OTHERS)
def test_what_is_a_figure(text):
    assert FIGURE.search(text)


@pytest.mark.parametrize("text", ["12 x 768", "3 layers", "BERT-base", "--minutes 60 --seeds 3", "2,000 texts", "temperature 4"])
def test_what_is_none(text):
    assert not FIGURE.search(text)
