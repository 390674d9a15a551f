"""The tokenizers of a recipe's models: which one a student takes, and whether the weights that it starts from are of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .data.tasks import Examples
from .data.tokenize import Tokenizer
from .data.word_vocabulary import WordTokenizer, build_words
from .errors import CheckpointError, RecipeError
from .model_sections import AFRESH, WordsSection
from .recipe import Recipe
from .shown import plain

Load = Callable[[Path], Tokenizer | WordTokenizer]
"""`load_tokenizer`, or what remembers its answers: one of 250,000 tokens takes seconds."""


def teacher_key(recipe: Recipe, name: str) -> str:
    """The recipe's key of a teacher's folder."""
    return "teacher.model" if recipe.teacher is not None else f"teachers.{name}.model"


def file_key(recipe: Recipe, name: str) -> str:
    """The recipe's key of a teacher's file of answers."""
    return "teacher.file" if recipe.teacher is not None else f"teachers.{name}.file"


def words_of(recipe: Recipe, source: str, train: Examples) -> WordTokenizer:
    """A BiLSTM's tokenizer: the words of the training texts."""
    if train.tokens is not None:
        raise RecipeError(source, [f"student: a BiLSTM needs texts, but {train.source} holds records of tokens"])
    words = recipe.student.words or WordsSection()
    return build_words([*train.texts, *(train.pairs or [])], words.vocabulary)


def student_tokenizer(recipe: Recipe, source: str, load: Load) -> Tokenizer | WordTokenizer | None:
    """The student's own tokenizer, else the first teacher's, else that of the weights the student starts from. None of a BiLSTM,
    which has its own words (`words_of`), and where that cannot be had for a reason that is reported elsewhere."""
    student, teachers = recipe.student, recipe.model_teachers
    if student.is_bilstm:
        return None
    if student.tokenizer is not None:
        key, folder = "student.tokenizer", student.tokenizer
    elif teachers:
        name, section = next(iter(teachers.items()))
        key, folder = teacher_key(recipe, name), section.model
    elif student.init.source != "random":
        key, folder = "student.init.from", Path(student.init.source)
    else:
        raise RecipeError(source, ["student.tokenizer: missing; a student from random weights needs a tokenizer folder"])
    if student.tokenizer is None and not folder.is_dir():
        return None
    return keyed_tokenizer(key, folder, load)


def check_start(recipe: Recipe, source: str, tokenizer: Tokenizer | WordTokenizer | None, load: Load) -> bool:
    """True if the weights that the student starts from are of its tokenizer, as far as is known. Raises RecipeError where they
    are not: rows of other words would be taken for its own."""
    start, teachers = recipe.student.init.source, recipe.model_teachers
    if tokenizer is None or recipe.student.is_bilstm or start == "random" or (start == "teacher" and not teachers):
        return True
    name, folder = "student.init.from", Path(start)
    if start == "teacher":
        first, section = next(iter(teachers.items()))
        name, folder = teacher_key(recipe, first), section.model
    try:
        own = load(folder)
    except CheckpointError:  # weights alone, or told where it is needed
        return True
    if own.fingerprint == tokenizer.fingerprint:
        return True
    theirs, ours = (each.library.get_vocab(with_added_tokens=True) for each in (own, tokenizer))
    others = [(index, token) for token, index in ours.items() if index < own.vocab_size and theirs.get(token) != index]
    if others:
        wrong = min(others)[1]  # the same one at each call
        message = f"student.init.from: '{start}', whose tokenizer ({name}: {folder}) is not the student's ({tokenizer.source}): "
        told = f"'{plain(wrong)}' is token {ours[wrong]} here and {theirs.get(wrong, 'none')} there; "
        remedy = f"use {AFRESH}" if start == "teacher" else f"use `student.tokenizer: {folder}`, or {AFRESH}"
        raise RecipeError(source, [message + told + remedy])
    return True


def keyed_tokenizer(key: str, folder: Path, load: Load) -> Tokenizer:
    """The tokenizer in a folder that the recipe's `key` names, as its errors do."""
    try:
        tokenizer = load(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error
    problem = None if tokenizer.is_words else tokenizer.case_problem()
    if problem is not None:
        raise CheckpointError(f"{key}: {problem}")
    return tokenizer
