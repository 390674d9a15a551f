"""What a recipe does, said without its data or its teacher: what it is from, what it needs, each stage resolved, its
presets, and what it costs. All as plain data; `explain_view` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from ..catalogue_folder import RECIPES_FOLDER
from ..data.masking import MaskingSettings
from ..kinds.known_kinds import kind_named
from ..losses.base import LossTerm, TermContext
from ..losses.matching import HiddenMatch, MatchTerm
from ..losses.sentence_vectors import ProjectedSentences, SentenceTerm
from ..model_sections import WordsSection
from ..models.answer_heads import NEXT_WORDS
from ..models.architectures import Config, model_type
from ..models.outputs import EMBEDDING, LOGITS, MASKED_WORDS, WORDS
from ..objective import term_labels
from ..plan import START, Plan
from ..plugin_files import load_plugins
from ..recipe import Recipe, find_recipe, load_recipe, presets_of, recipe_tree
from ..recipe_tokenizers import teacher_key
from ..stage_section import StageSection
from . import costs
from .preparing import explained

_SHOWN_APART = {"loss", "weight", "weight_schedule", "layers", "projection"}


def catalogue() -> list[dict[str, Any]]:
    """The recipes that come with the product, each in a line."""
    found = []
    for path in sorted(RECIPES_FOLDER.glob("*.yaml")):
        recipe = load_recipe(path)
        terms = [term.loss for stage in recipe.stages for term in stage.objective]
        found.append({"recipe": path.stem, "description": recipe.description, "terms": list(dict.fromkeys(terms))})
    return found


def explain(
    name: str, overrides: Iterable[str] = (), preset: str | Sequence[str] | None = None, plugins: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything that is known about a recipe by itself. Raises CrossdistilError."""
    recipe, path = load_recipe(name, overrides, preset, plugins), find_recipe(name)
    found, missing = explained(recipe, name)
    text = path.read_text(encoding="utf-8")
    return {
        "recipe": path.stem,
        "preset": preset if isinstance(preset, str) else ", ".join(preset or ()) or None,
        "method": recipe.method,
        "description": recipe.description,
        **recipe.notes.model_dump(),
        "plugins": {
            section.plugin: load_plugins([section]).describe() for section in recipe.plugins
        },
        "needs": _needs(recipe, found, text, START in missing),
        "student": _model(found.context, found.context.student, found.context.outputs) | _start(recipe),
        "teachers": {
            name: _model(found.context, config, _outputs_of(name, found.context))
            | {"folder": str(recipe.model_teachers[name].model), "assumed": teacher_key(recipe, name) in missing}
            for name, config in found.context.teachers.items()
            if name not in found.context.files
        },
        "files": {name: str(section.file.path) for name, section in recipe.file_teachers.items()},
        "problems": found.problems,
        "stages": [_stage(recipe, index, found) for index in range(len(recipe.stages))],
        "presets": _presets(recipe_tree(name), load_recipe(name, plugins=plugins), text),
    }


def _outputs_of(teacher: str, context: TermContext) -> int | None:
    """How many logits a teacher has."""
    return 1 if teacher in context.rerankers else context.outputs


def _model(context: TermContext, config: Config, outputs: int | None) -> dict[str, Any]:
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    if model_type(config) == "bilstm":
        keys = ("vocab_size", "embedding_size", "hidden_size", "fully_connected_size")
    sizes = {key: getattr(config, key) for key in keys}
    parameters = costs.parameter_count(config, outputs, context.kind.guesses_words)
    return {"model_type": model_type(config), **sizes, "parameters": parameters}


def _start(recipe: Recipe) -> dict[str, Any]:
    init = recipe.student.init
    layers = None if init.layers is None else list(init.layers)
    return {"from": init.source, "from_layers": layers, "vocabulary": init.vocabulary}


def _needs(recipe: Recipe, found: Plan, text: str, starts_elsewhere: bool) -> dict[str, Any]:
    raw = not kind_named(recipe.task.kind).has_targets
    terms = [term for stage in recipe.stages for term in stage.objective]
    users = [t.loss for t in terms if t.weight and (t.unit == "labelled" or getattr(t, "probability_shift", False))]
    spec, data = found.spec, "raw text"
    if not raw:
        pairs = "" if spec is None else ", pairs of texts" if spec.text_pair else ", single texts"
        data = f"a task with train and dev files ({recipe.task.name}{pairs})"
    teacher = "none"
    if recipe.file_teachers and not recipe.model_teachers:
        teacher = "a file of its answers"
    if recipe.model_teachers:
        teacher = "pretrained encoder" if raw else "fine-tuned on the task"
        if kind_named(recipe.task.kind).embeds:
            teacher = "a reranker" if recipe.rerankers == recipe.model_teachers.keys() else "an embedding model"
        if any(term.needs_words and term.needs_teacher for term in terms):
            causal = kind_named(recipe.task.kind).head == NEXT_WORDS
            teacher = f"pretrained {'causal' if causal else 'masked'} language model"
    return {
        "teacher": teacher,
        "data": data,
        "labels": sorted(set(users)),
        "start": recipe.student.init.source if starts_elsewhere else None,
        "augmentation": _augmentation(text),
    }


def _augmentation(text: str) -> str:
    """What the comment at the head of a recipe's file says of augmented texts."""
    header = re.match(r"(?:#.*\n)*", text).group()
    # Commands are indented further than prose.
    prose = " ".join(line[1:] for line in header.splitlines() if not line.startswith("#   "))
    sentences = re.split(r"(?<=[.:])\s+(?=[A-Z])", " ".join(prose.split()))
    return " ".join(sentence for sentence in sentences if "augment" in sentence.lower())


def _stage(recipe: Recipe, index: int, found: Plan) -> dict[str, Any]:
    section, context = recipe.stages[index], found.context
    labels = term_labels(section.objective, section.name)
    wrong = any(problem.startswith((f"stages[{index}]", "student.")) for problem in found.problems)
    train = section.train.model_dump(mode="json")
    outputs = [term.student_outputs(context) for term in section.objective if not term.problems(context)]
    answers = any(wanted & {LOGITS, EMBEDDING, WORDS, MASKED_WORDS} for wanted in outputs)
    if not answers:  # there is no best where nothing can be scored
        train["keep"] = "last"
    return {
        "name": section.name,
        "terms": [_term(term, label, context) for term, label in zip(section.objective, labels)],
        "freeze": list(section.freeze),
        "replacement": None if section.replacement is None else section.replacement.model_dump(mode="json"),
        "train": train,
        "costs": None if wrong else _costs(recipe, section, labels, context),
    }


def _term(term: LossTerm, label: str, context: TermContext) -> dict[str, Any]:
    fits = not term.problems(context)
    found = {
        "loss": term.loss,
        "weight": term.weight,
        "weight_schedule": term.weight_schedule,
        "formula": term.formula,
        "unit": term.unit,
        "options": _options(term),
    }
    if isinstance(term, SentenceTerm):
        found["unit"] = term.mean_over(context)
    if isinstance(term, MatchTerm):
        found["layers"] = {
            "rule": term.layers if isinstance(term.layers, str) else "a list",
            "resolved": term.describe(context) if fits else None,
        }
    if fits and isinstance(term, HiddenMatch | ProjectedSentences) and term.projection is not None:
        tensors, names = term.projections(context, label), term.projection_names(context, label)
        found["projections"] = [
            {
                "name": name,
                "kind": term.projection.kind,
                "shape": list(tensors[f"{name}.weight"].shape),
                "uses": names.count(name),
                "learning_rate": term.projection.learning_rate,
            }
            for name in dict.fromkeys(names)
        ]
    return found


def _options(section: BaseModel) -> dict[str, Any]:
    """The options that are not at their default."""
    content = section.model_dump(mode="json")
    defaults = {name: field.get_default(call_default_factory=True) for name, field in type(section).model_fields.items()}
    return {
        name: content[name]
        for name in content
        if name not in _SHOWN_APART and getattr(section, name) != defaults[name]
    }


def _costs(recipe: Recipe, section: StageSection, labels: list[str], context: TermContext) -> dict[str, Any]:
    student_outputs = frozenset().union(*(term.student_outputs(context) for term in section.objective))
    wanted: dict[str, frozenset[str]] = {}
    for term in section.objective:
        for name, outputs in term.teacher_outputs(context).items():
            if name in context.files:
                continue
            wanted[name] = wanted.get(name, frozenset()) | outputs
    longest = recipe.task.max_length
    if recipe.student.is_bilstm:
        longest = min(longest, (recipe.student.words or WordsSection()).max_length)
    length = min(costs.TEXT_LENGTH, longest)
    uses = [
        tensors[f"{name}.weight"].shape
        for term, label in zip(section.objective, labels)
        if (tensors := term.projections(context, label))
        for name in term.projection_names(context, label)
    ]
    share = (recipe.task.masking or MaskingSettings()).probability
    student = 3 * costs.forward_cost(context.student, student_outputs, context.outputs, length)
    student += 3 * costs.words_cost(context.student, student_outputs, share)
    student += costs.projection_cost(uses)
    answers = {name: _outputs_of(name, context) for name in wanted}
    teacher = sum(
        costs.forward_cost(context.teachers[name], outputs, answers[name], length)
        + costs.words_cost(context.teachers[name], outputs, share)
        for name, outputs in wanted.items()
    )
    found = costs.summary(student, teacher, section.train.epochs)
    found |= {"text_length": length, "at_first": None, "teacher_outputs": {n: sorted(o) for n, o in wanted.items()}}
    if section.replacement is not None:
        predecessor = context.teachers[context.teacher(None)]
        found["at_first"] = costs.replacing_cost(
            context.student, predecessor, section.replacement.rate, context.outputs, length
        )
    asked, obstacle = recipe.teacher_cache, _cache_obstacle(recipe, section)
    found["cache"] = None
    if wanted and obstacle is not None:
        found["cache"] = {"obstacle": obstacle, "precision": asked.precision, "bytes_per_1000_tokens": None}
    elif wanted:
        size = costs.cache_bytes(context.teachers, wanted, answers, asked.precision, length)
        found["cache"] = {"obstacle": obstacle, "precision": asked.precision, "bytes_per_1000_tokens": size}
    return found


def _cache_obstacle(recipe: Recipe, section: StageSection) -> str | None:
    """Why there will be no cache of the teachers' outputs."""
    if recipe.teacher_cache.use == "never":
        return "teacher_cache.use is never"
    if recipe.teacher_dropout:
        return "teacher_dropout makes the teacher's outputs different in every step"
    if reason := kind_named(recipe.task.kind).not_kept:
        return reason
    padded = [term.loss for term in section.objective if term.unit in ("positions", "position_pairs")]
    return f"{padded[0]} with mask_padding: false compares padding, which is not cached" if padded else None


def _presets(tree: dict[str, Any], base: Recipe, text: str) -> list[dict[str, Any]]:
    resolved = base.resolved()
    return [
        {
            "name": name,
            "comment": _comment(text, name),
            "changes": [
                {"key": key, "from": _value(tree, resolved, key), "to": value} for key, value in (settings or {}).items()
            ],
        }
        for name, settings in presets_of(tree, base.method).items()
    ]


def _comment(text: str, preset: str) -> str:
    found = re.search(rf"^presets:\n(?:[ #].*\n|\n)*?  {re.escape(preset)}: *# *(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _value(tree: dict[str, Any], resolved: dict[str, Any], key: str) -> Any:
    """What a recipe has at `path.to.key`: as written, else its default; None where that is not a single value."""
    for node in (tree, resolved):
        for part in key.split("."):
            if isinstance(node, dict):
                node = node.get(part)
            else:
                node = node[int(part)] if isinstance(node, list) and part.isdigit() and int(part) < len(node) else None
        if node is not None:
            return None if isinstance(node, dict | list) else node
    return None
