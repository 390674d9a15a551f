"""Opening a finished model, to use it: with its head and its tokenizer."""

from __future__ import annotations

import logging
from pathlib import Path

from ..checkpoint import Model, load_model
from ..config_file import read_config
from ..data.tokenize import Tokenizer, load_tokenizer
from ..errors import CheckpointError
from ..models.answer_heads import NEXT_WORDS, SENTENCES, AnswerHead
from ..models.head_classes import says_words
from ..sentence_folder import embeds
from ..vocabulary_fit import vocabulary_notes, vocabulary_problems
from .model_notes import paths_as_given, tell_notes
from .models import model_folder
from .sessions import Tell


def load_classifier(
    folder: Path, tell: Tell | None = None, classifier: AnswerHead | None = SENTENCES
) -> tuple[Model, Tokenizer]:
    """A model with a head, and its tokenizer; raises CheckpointError if one of them is missing. `tell` is told what to know of
    the model; without it, that is logged. `classifier` is the head that it has to have, None whichever."""
    found = model_folder(folder)
    with paths_as_given((folder, found)):
        model = load_model(found, classifier=classifier)
        if classifier is not None and model.new and embeds(found):
            told = "embeds texts (modules.json) and has no classifier; expected a classifier of sentences"
            raise CheckpointError(f"{folder}: {told}")
        if model.other_head:
            raise CheckpointError(f"{folder}: {model.other_head}; expected a classifier of sentences")
        if model.new:
            recipe = getattr(model.config, "classifier", SENTENCES).recipe
            first = f"crossdistil run {recipe} --set student.init.from={folder} --set task.data=FOLDER"
            raise CheckpointError(f"{folder}: {_without_head(folder, found, model.new[0], first)}")
        tokenizer = load_tokenizer(found)
        if problems := vocabulary_problems(str(folder), model.config, tokenizer):
            raise CheckpointError("\n".join(problems))
    notes = [*model.notes, *vocabulary_notes(str(folder), model.config, tokenizer)]
    tell_notes(notes, tell, (folder, found))
    return model, tokenizer


def _without_head(folder: Path, found: Path, missing: str, first: str) -> str:
    """What can be done with a model that lacks a tensor of a classifier's head; `first` is the command that trains one."""
    head, told = says_words(read_config(found, "")), f"has no {missing}, so it cannot classify; fine-tune it first: {first}"
    if head is None:
        return told
    run = f"crossdistil run {head.recipe} --set student.init.from={folder} --set task.data=FILE --set task.files.dev=FILE"
    if head == NEXT_WORDS:  # what it is for is no answer
        return (
            f"is a language model, which goes on with a text and has no answer to it: transformers' {head.class_name} lets it "
            f"write, {run} trains it further and tells its perplexity, and {first} makes a classifier of it"
        )
    more = f"transformers' {head.class_name} says them, and {run} trains them further and tells their perplexity"
    return f"{told}. Its words: {more}"


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
