"""README and docs/: the site builds without a broken link and needs nothing from a network, and every table is what the kept
results give."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import crossdistil
from crossdistil.core.catalogue_folder import RECIPES_FOLDER

ROOT = Path(crossdistil.__file__).resolve().parent
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\bsrc=["']https?:|<link[^>]*\brel="?stylesheet"?[^>]*href=["']https?:"""
)
"""What a browser loads by itself."""


@pytest.mark.only_backend("torch")  # whose environment has the generator
def test_the_site_builds_without_a_broken_link_and_works_offline(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not FETCHED.search(page.read_text(encoding="utf-8")), page.name
    assert "crossdistil compare" in (tmp_path / "site" / "search" / "search_index.js").read_text(encoding="utf-8")


def test_every_table_is_what_the_kept_results_give():
    command = [sys.executable, str(ROOT / "benchmarks" / "pages.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_the_reference_is_what_the_code_says():
    command = [sys.executable, str(ROOT / "docs" / "generator" / "reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_every_page_is_led_to_from_the_first_and_every_recipe_is_listed():
    docs = ROOT / "docs"
    index = (docs / "index.md").read_text(encoding="utf-8")
    pages = {f"{path.parent.name}/{path.name}" if path.parent != docs else path.name for path in docs.rglob("*.md")}
    pages = {page for page in pages if page != "index.md" and not (page.startswith("methods/") and page != "methods/index.md")}
    assert not [page for page in sorted(pages) if f"]({page}" not in index]
    for page in ("recipes.md", "methods/index.md"):
        text = (docs / page).read_text(encoding="utf-8")
        assert not [path.stem for path in RECIPES_FOLDER.glob("*.yaml") if f"`{path.stem}`" not in text], page


def test_the_readme_is_short():
    for name in ("README.md", "README.zh-CN.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 150, name


def test_the_links_of_the_readme_lead_somewhere():
    for name in ("README.md", "README.zh-CN.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{name}: {target}"
