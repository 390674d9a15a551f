"""Kinds of tasks that plugins register (`core.plugin_kinds`): what files say of them, and what to say where one is not loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..shown import plain, shown
from .kind import Kind
from .known_kinds import KINDS

OF_PLUGIN = "kind_plugin"
"""Key of `crossdistil` in a config.json."""


def kind_entry(kind: Kind, labels: Iterable[str] | None) -> dict[str, Any]:
    """What a model's config.json says of a kind of a plugin, with its classes, of which there may be more or fewer than logits;
    nothing of this package's."""
    if not kind.code:
        return {}
    named = None if labels is None else list(labels)
    return {OF_PLUGIN: {"kind": kind.name, "labels": named, "plugin": kind.plugin, "sha256": kind.code}}


def kind_told(entry: Any) -> Kind:
    """The kind that `kind_entry` says. Raises ValueError where that is not loaded, or says something else."""
    given = entry if isinstance(entry, dict) else {}
    labels, named = given.get("labels"), [given.get(key) for key in ("kind", "plugin", "sha256")]
    texts = labels is None or (isinstance(labels, list) and all(isinstance(label, str) for label in labels))
    if not texts or not all(isinstance(each, str) for each in named):
        raise ValueError(f"{OF_PLUGIN}: got {shown(entry, 60)}, expected kind, labels, plugin and sha256")
    name, plugin, _ = named
    if name not in KINDS or not KINDS[name].code:
        way = f"--plugin {plain(plugin)}, or `plugins` of a recipe"
        raise ValueError(f"is of a kind of task of a plugin, '{plain(name)}' of {plain(plugin)}: {way}")
    return KINDS[name]


def other_kind_code(about: Mapping[str, Any], kind: Kind) -> str:
    """What to say where a model was trained with other code of its kind's plugin; else an empty string."""
    written = about.get(OF_PLUGIN)
    if not isinstance(written, dict) or written.get("sha256") == kind.code:
        return ""
    now = f"which is {kind.code[:12]}... now"
    return f"was trained with SHA-256 {plain(str(written.get('sha256'))[:12])}... of the plugin of its kind of task, {now}"
