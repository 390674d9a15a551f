"""The examples of a recipe: its splits read, train mixed with other data, joined with the answers of files; and as tokens."""

from __future__ import annotations

from .data.limits import limited
from .data.mixing import mixed
from .data.tasks import Examples, TaskSpec, check_folder, read_split
from .data.tokenize import Tokenizer
from .data.word_vocabulary import WordTokenizer
from .errors import Errors
from .labelled.labelled_rows import with_answers
from .models.answer_heads import NEXT_WORDS
from .recipe import Recipe
from .recipe_tokenizers import file_key
from .task_data import MISMATCHED, TaskData, masked_text_data, next_text_data, raw_text_data, tokenize
from .task_section import TaskSection


def read_examples(recipe: Recipe, spec: TaskSpec) -> dict[str, Examples] | None:
    """The examples by split; for raw text, whose texts are only read with the tokenizer, without texts."""
    task = recipe.task
    if not spec.kind.has_targets:
        return {}
    if spec.own is None:
        check_folder(task.data)
    errors, examples = Errors(), {}
    splits = ["train", "dev", *(split for split in spec.splits if split == MISMATCHED)]
    if spec.kind.embeds and "dev" not in spec.splits:  # then it is not scored
        splits.remove("dev")
    for split in splits:
        examples[split] = errors.collect(_used_split, spec, task, split)
    errors.throw()
    for index, section in enumerate(recipe.aux_data):
        train = errors.collect(mixed, examples["train"], spec, section, f"aux_data[{index}]", recipe.registered)
        examples["train"] = examples["train"] if train is None else train
    errors.throw()
    for name, section in recipe.file_teachers.items():
        given = spec, section.file, name, file_key(recipe, name), task.data
        joined = errors.collect(with_answers, examples, *given)
        examples = examples if joined is None else joined
    errors.throw()
    return examples


def _used_split(spec: TaskSpec, task: TaskSection, split: str) -> Examples:
    return limited(read_split(spec, task.data, split), task.limit, split)


def tokenize_examples(
    spec: TaskSpec,
    recipe: Recipe,
    tokenizer: Tokenizer | WordTokenizer,
    buckets: tuple[int, ...],
    examples: dict[str, Examples] | None,
    max_length: int,
) -> TaskData:
    """The examples as tokens, at most `max_length` of a text, to be padded to one of `buckets`. Raw text has no examples, and is
    read here."""
    task = recipe.task
    if spec.kind.head == NEXT_WORDS:
        return next_text_data(spec, task, tokenizer, buckets, max_length)
    if spec.kind.guesses_words:
        return masked_text_data(spec, task, tokenizer, buckets, max_length, recipe.seed)
    if not spec.kind.has_targets:
        return raw_text_data(spec, task, tokenizer, buckets, max_length)
    return tokenize(spec, tokenizer, buckets, examples, max_length)
