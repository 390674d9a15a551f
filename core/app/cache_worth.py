"""Whether a stage's teachers can be cached, whether that pays, and whether there is room."""

from __future__ import annotations

import shutil
from collections.abc import Collection

from ..job import Job
from ..stages import Stage
from ..teacher_cache import TeacherCache

LARGEST = 64 << 30
"""Bytes above which `auto` does not make a cache, whatever the room."""
WORTHWHILE_PASSES = 1.5


def obstacle_to_caching(job: Job, stage: Stage) -> str | None:
    """Why the outputs of a stage's teachers cannot be cached; None where they can."""
    if job.recipe.teacher_dropout:
        return "teacher_dropout makes its outputs different in every step"
    if reason := job.data.spec.kind.not_kept:
        return reason
    padded = [term.loss for term in stage.objective.terms if term.unit in ("positions", "position_pairs")]
    return f"{padded[0]} with mask_padding: false compares padding, which is not cached" if padded else None


def is_worthwhile(stage: Stage) -> bool:
    """Whether a stage goes over the rows often enough."""
    return stage.total / stage.batches.steps_per_epoch >= WORTHWHILE_PASSES


def room_for(caches: Collection[TeacherCache]) -> tuple[bool, str]:
    """Whether the disk has room for what is missing of caches that are in one place, some of them perhaps in the same files; in
    words, how much that is, and is free."""
    missing = {path: size for cache in caches for path, size in cache.missing.items()}
    size, folder = sum(missing.values()), next(iter(caches)).folder
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.is_dir())).free
    return size <= min(LARGEST, free / 2), f"{size / 1e9:.1f} GB, with {free / 1e9:.1f} GB free"
