"""Opening a finished model, to use it: with its head and its tokenizer."""

from __future__ import annotations

import logging
from pathlib import Path

from ..checkpoint import Model, load_model
from ..config_file import read_config
from ..data.tokenize import Tokenizer, load_tokenizer
from ..errors import CheckpointError
from ..model_inputs import takes_pairs
from ..models.answer_heads import EMBEDDINGS, NEXT_WORDS, SENTENCES, SPANS, TOKENS, AnswerHead
from ..models.architectures import model_type
from ..models.head_classes import says_words
from ..models.known_families import answer_families, token_families
from ..sentence_folder import embeds
from ..vocabulary_fit import vocabulary_notes, vocabulary_problems
from .model_notes import paths_as_given, tell_notes
from .models import model_folder
from .sessions import Tell

_TRAINED = {
    SENTENCES.recipe: "classes or numbers of texts",
    TOKENS.recipe: "labels of words",
    SPANS.recipe: "answers in a text",
    EMBEDDINGS.recipe: "vectors of texts",
    "reranker": "an order of texts",
}
"""Recipe that trains an encoder for a task -> what its model answers with."""


def load_classifier(
    folder: Path, tell: Tell | None = None, classifier: AnswerHead | None = SENTENCES, task: AnswerHead | None = None
) -> tuple[Model, Tokenizer]:
    """A model with a head, and its tokenizer; raises CheckpointError if one of them is missing. `tell` is told what to know of
    the model; without it, that is logged. `classifier` is the head that it has to have, None whichever; `task` the one that what
    it is used for asks for, where that is known, so that the error of a model without any can say what trains it."""
    found = model_folder(folder)
    with paths_as_given((folder, found)):
        model = load_model(found, classifier=classifier)
        if classifier is not None and model.new and embeds(found):
            told = "embeds texts (modules.json) and has no classifier; expected a classifier of sentences"
            raise CheckpointError(f"{folder}: {told}")
        if model.other_head:
            raise CheckpointError(f"{folder}: {model.other_head}; expected a classifier of sentences")
        if model.new:
            head = classifier or task or getattr(model.config, "classifier", SENTENCES)
            known = classifier or task or head != SENTENCES  # which is what stands for any
            raise CheckpointError(f"{folder}: {_without_head(folder, found, model, head.recipe if known else None)}")
        tokenizer = load_tokenizer(found)
        if problems := vocabulary_problems(str(folder), model.config, tokenizer):
            raise CheckpointError("\n".join(problems))
    pairs = model.kind.ranks or model.kind.of_spans or takes_pairs(model.about.get("task") or {})
    notes = [*model.notes, *vocabulary_notes(str(folder), model.config, tokenizer, pairs)]
    tell_notes(notes, tell, (folder, found))
    return model, tokenizer


def _without_head(folder: Path, found: Path, model: Model, recipe: str | None) -> str:
    """What can be done with a model that lacks the tensors of a head; `recipe` is the one that trains it, None where that depends
    on the task."""
    says, further = says_words(read_config(found, "")), f"--set student.init.from={folder} --set task.data=FOLDER"
    of_words = f"--set student.init.from={folder} --set task.data=FILE --set task.files.dev=FILE"
    run = "" if says is None else f"crossdistil run {says.recipe} {of_words}"
    if says == NEXT_WORDS:  # what it is for is no answer
        return (
            f"is a language model, which goes on with a text and has no answer to it: transformers' {says.class_name} lets it "
            f"write, {run} trains it further and tells its perplexity, and crossdistil run {SENTENCES.recipe} {further} makes a "
            "classifier of it"
        )
    unable = "classify" if recipe == SENTENCES.recipe else "answer"
    told = f"has no {model.new[0]}, so it cannot {unable}; fine-tune it first: crossdistil run {recipe or 'RECIPE'} {further}"
    if recipe is None:
        told += ", where RECIPE is " + ", ".join(f"{name} ({what})" for name, what in _TRAINED.items() if _fits(name, model))
    if says is None:
        return told
    more = f"transformers' {says.class_name} says them, and {run} trains them further and tells their perplexity"
    return f"{told}. Its words: {more}"


def _fits(recipe: str, model: Model) -> bool:
    """Whether a model's family has the head that a recipe trains."""
    families = {TOKENS.recipe: token_families, SPANS.recipe: answer_families}.get(recipe)
    return families is None or model_type(model.config) in families()


def load_user_model(folder: Path, command: str, tell: Tell | None = None) -> tuple[Model, Tokenizer]:
    """A model of any kind that is exported and served, and its tokenizer. Raises CheckpointError."""
    model, tokenizer = load_classifier(folder, tell, None)
    if not model.kind.is_used:
        raise CheckpointError(f"{folder}: is a model of {model.kind.title}, which {command} does not take")
    return model, tokenizer


def warn(line: str, tell: Tell | None) -> None:
    """Tell of what looks wrong; where nobody listens, log it."""
    if tell is None:
        logging.getLogger(__name__).warning("%s", line)
    else:
        tell(f"warning: {line}")
