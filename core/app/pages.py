"""How pages are made of their templates beside this file: everything that comes from a run is escaped, and nothing is loaded from
elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


def page(name: str, content: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]]) -> str:
    """The template of that name, filled."""
    return _environment(tuple(filters.items())).get_template(name).render(content)


@functools.lru_cache(8)
def _environment(filters: tuple[tuple[str, Callable[..., Any]], ...]) -> jinja2.Environment:
    """Which keeps the templates that it has compiled, each for a twentieth of a second."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )
    environment.filters |= filters
    return environment
