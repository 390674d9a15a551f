"""Whether a model fits a task and a tokenizer: classes, vocabulary, length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .data.tagged_tokens import most_overlap, window_room
from .kinds.known_kinds import RANKING
from .models.answer_heads import SPANS, TOKENS
from .vocabulary_fit import vocabulary_problems

if TYPE_CHECKING:
    from .checkpoint import Model
    from .data.tasks import TaskSpec
    from .data.tokenize import Tokenizer
    from .models.architectures import Config
    from .task_section import TaskSection

SAME_NAMES = " (if they mean the same, give them the same names: in the table, or as id2label in the model's config.json)"


def teacher_problems(teacher: Model, spec: TaskSpec, where: str, reranks: bool = False) -> list[str]:
    """Why this model, which `where` names, cannot answer this task: another number, naming or order of the classes. One that
    `reranks` is to score pairs, whatever the task is."""
    if reranks:
        if teacher.kind.can_teach(RANKING):
            return []
        return [f"{where}: is no cross-encoder, a classifier with one output (recipes/reranker.yaml), which kind: ranking takes"]
    if spec.kind.embeds and not teacher.kind.embeds:
        if teacher.kind == RANKING:
            return [f"{where}: is a cross-encoder, which scores pairs and embeds no text; kind: ranking beside model says so"]
        way = "task.embeddings.teacher_pooling says how it pools (mean, cls or last)"
        return [f"{where}: has no modules.json of sentence-transformers, so how it embeds texts is not known; {way}"]
    head = spec.kind.head
    own = {TOKENS: "classifier of tokens", SPANS: "head for answers"}.get(head)
    if teacher.other_head:
        return [f"{where}: {teacher.other_head}; expected a {own or 'classifier of sentences'}"]
    if teacher.new:
        recipe = "reranker" if spec.kind.ranks else head.recipe
        return [f"{where}: has no {own or teacher.new[0]}; fine-tune it on the task first (recipes/{recipe}.yaml)"]
    if not teacher.kind.can_teach(spec.kind):
        return [f"{where}: trained for {teacher.kind.a_title}, but the task is {spec.kind.a_title}"]
    if not spec.kind.has_classes:
        return []
    got, expected = teacher.labels or (), spec.label_names or ()
    if len(got) != len(expected):
        return [f"{where}: has {len(got)} classes ({', '.join(got)}), the task {len(expected)} ({', '.join(expected)})"]
    if not same_labels(got, spec):
        problem = f"{where}: its classes are {', '.join(got)}, in this order; the task's are {', '.join(expected)}"
        others = {name.lower() for name in got} != {name.lower() for name in expected}
        return [problem + (SAME_NAMES if others else "")]
    return []


def words_problems(teacher: Model, where: str) -> list[str]:
    """Why this model cannot teach which words fit: it has no head that predicts them, or one that cannot be shared."""
    if teacher.missing_words:
        return [f"{where}: has no {teacher.missing_words[0]}: it predicts no words; train its head first (recipes/mlm.yaml)"]
    if teacher.decoder is not None:
        return [f"{where}: predicts words with a weight that is not its word embeddings; only models whose two are one can teach"]
    return []


def same_labels(names: tuple[str, ...], spec: TaskSpec) -> bool:
    """Whether class names mean the task's classes in the task's order; generic names (LABEL_0, ...) always do."""
    given = tuple(name.lower() for name in names)
    generic = tuple(f"label_{index}" for index in range(len(names)))
    known = [tuple(name.lower() for name in choice or ()) for choice in (spec.label_names, spec.labels)]
    return given in [generic, *known]


def fit_problems(where: str, config: Config, tokenizer: Tokenizer, task: TaskSection) -> list[str]:
    """What does not fit between a model, the tokenizer and the task's length."""
    return vocabulary_problems(where, config, tokenizer) + length_problems(where, config, task)


def length_problems(where: str, config: Config, task: TaskSection) -> list[str]:
    """Whether a model has positions for the task's length."""
    if getattr(config, "positions", task.max_length) >= task.max_length:
        return []
    return [f"task.max_length: {task.max_length}, but {where} has only {config.positions} positions"]


def window_problems(tokenizer: Tokenizer, task: TaskSection) -> list[str]:
    """Why windows of a long text cannot have so many tokens in common as `task.tokens.overlap` says."""
    overlap = None if task.tokens is None else task.tokens.overlap
    room = window_room(tokenizer, task.max_length)
    most = most_overlap(room)
    if overlap is None or room < 2 or overlap <= most:
        return []
    left = f"half of the {room} tokens that task.max_length {task.max_length} leaves to the text"
    return [f"task.tokens.overlap: got {overlap}, expected at most {most}, {left}"]


def same_inputs(teacher: Model, student: Model) -> bool:
    """Whether a student takes just what its teacher takes: then it has the same problems, which are told once."""
    keys = ("vocab_size", "positions")
    return all(getattr(teacher.config, key, None) == getattr(student.config, key, None) for key in keys)
