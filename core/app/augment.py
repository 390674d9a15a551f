"""Putting an augmentation together from what the command line names: its tagger, or its language model and engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...backends.registry import load_engine
from ..augmentation.copies import Copy, Report
from ..augmentation.language_model import GapFiller, load_language_model
from ..augmentation.replaced_words import CandidateFinder, MaskedSettings, augment_by_masked_lm
from ..augmentation.tagging import EnglishTagger, LexiconTagger
from ..augmentation.task_folder import TrainingTexts
from ..augmentation.vectors import load_vectors
from ..augmentation.word_copies import WordAugmentation, WordSettings
from ..engine import EngineOptions
from ..extras import require
from .model_notes import paths_as_given, tell_notes, told_engine
from .models import model_folder

Made = tuple[dict[str, Any], Iterator[Copy]]
"""What the note of the new folder says about it, and the copies."""


def by_words(train: TrainingTexts, settings: WordSettings, lexicon: Path | None, seed: int, report: Report) -> Made:
    """Masking, replacement by part of speech and n-grams."""
    if lexicon is None:
        require("augment", "parts of speech without --pos-lexicon")
    tagger = EnglishTagger() if lexicon is None else LexiconTagger(lexicon)
    copies = WordAugmentation(train.texts, train.pairs, tagger, settings).copies(seed, report)
    return {"settings": settings.model_dump(), "tagger": tagger.name}, copies


def by_masked_lm(
    train: TrainingTexts,
    settings: MaskedSettings,
    model: Path,
    vectors: Path | None,
    backend: str,
    options: EngineOptions,
    batch_size: int,
    seed: int,
    report: Report,
    tell: Callable[[str], None] | None = None,
) -> Made:
    """Replacement by a language model and word vectors. `tell` is told what to know of the model; without it, that is logged."""
    folder = model_folder(model, "--model")
    with paths_as_given((model, folder)):
        language_model = load_language_model(folder)
    tell_notes(language_model.notes, tell, (model, folder))
    near = None if vectors is None else load_vectors(vectors)
    engine = told_engine(load_engine(backend, options), tell)
    filler = GapFiller(language_model, engine, batch_size)
    finder = CandidateFinder(language_model, filler, settings.candidates, near)
    about = {
        "settings": settings.model_dump(),
        "model_sha256": language_model.digest,
        "vectors": None if near is None else {"file": vectors.name, "words": len(near.words)},
        "backend": {"name": engine.name, "device": engine.device, "precision": engine.precision},
    }
    return about, augment_by_masked_lm(train.texts, train.pairs, finder, settings, seed, report)
