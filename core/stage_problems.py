"""What does not fit between the stages of a recipe and its models: found from configurations alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .data.tokenize import Tokenizer
from .data.word_vocabulary import WordTokenizer
from .losses.base import LossTerm, TermContext
from .losses.layers import placed
from .losses.logits import LogitsMatch
from .models.architectures import is_encoder, is_frozen, model_type, shares_layers, used_tensors
from .models.outputs import EMBEDDING, LOGITS
from .objective import term_labels
from .recipe import Recipe
from .stage_section import StageSection
from .stages import is_scored

_EXACT_IN_FP16 = 2048
"""The whole numbers up to here are numbers of fp16."""


def stage_problems(recipe: Recipe, context: TermContext, others: Sequence[str], stages: int | None = None) -> list[str]:
    """What is wrong with the recipe's stages, or the first ones; `others` are the teachers whose tokens are not the student's
    (`apart`)."""
    count = len(recipe.stages) if stages is None else stages
    problems = [problem for index in range(count) for problem in _stage_problems(recipe, index, context, others)]
    return problems or _kept_problems(recipe, context)


def apart(tokenizer: Tokenizer | WordTokenizer | None, tokenizers: Mapping[str, Tokenizer | None]) -> list[str]:
    """The teachers whose tokens are not the student's."""
    return [
        name
        for name, other in tokenizers.items()
        if other is not None and tokenizer is not None and other.fingerprint != tokenizer.fingerprint
    ]


def _kept_problems(recipe: Recipe, context: TermContext) -> list[str]:
    """Why the largest logits cannot stand for all of a teacher's."""
    asked = recipe.teacher_cache
    if asked.top_k is None:
        return []
    if not context.kind.one_class or context.kind.of_spans:
        return [f"teacher_cache.top_k: keeps the most probable of several classes, but this is {context.kind.described}"]
    terms = [term for stage in recipe.stages for term in stage.objective]
    asking = {name for term in terms for name, outputs in term.teacher_outputs(context).items() if LOGITS in outputs}
    if not asking:
        return ["teacher_cache.top_k: keeps logits, which no term asks a teacher for"]
    if asking <= context.files:
        return ["teacher_cache.top_k: keeps a model's logits, but they are asked of a file, whose answers are read as they are"]
    if asked.precision == "fp16" and context.outputs > _EXACT_IN_FP16:
        told = f"holds the numbers of at most {_EXACT_IN_FP16:,} classes beside their logits, and there are {context.outputs:,}"
        return [f"teacher_cache.precision: fp16 {told}; use fp32"]
    return []


def _stage_problems(recipe: Recipe, index: int, context: TermContext, others: Sequence[str]) -> list[str]:
    stage, problems = recipe.stages[index], []
    for number, term in enumerate(stage.objective):
        place = f"stages[{index}].objective[{number}]"
        found = [(key, text) for key, text in term.problems(context)]
        if (reason := _beyond_answers(term, context, bool(found))) is not None:
            found = [("loss", reason)]
        unlabelled = context.files and context.labelled == 0
        if not found and unlabelled and term.unit == "labelled" and term.weight:
            way = "teacher.file.as_labels: where_missing lets it learn the file's answers"
            found = [("loss", f"{term.loss} learns labels, of which the training texts have none; {way}")]
        if not found and context.outputs is None and LOGITS in term.student_outputs(context):
            found = [("loss", f"{term.loss} needs an answer to a task, but the task is {context.kind.described}")]
        if not found and (inside := _inside_reranker(term, context)) is not None:
            found = [("loss", inside)]
        if not found and others:
            of_texts = frozenset({EMBEDDING}) if context.kind.over_tokens else frozenset({LOGITS, EMBEDDING})
            layered = [name for name, outputs in term.teacher_outputs(context).items() if name in others and outputs - of_texts]
            if layered:
                reason = f"{term.loss} compares token by token, but the student has another tokenizer than '{layered[0]}'"
                found = [("loss", reason)]
        problems += [placed(place, key, text) for key, text in found]
    if not problems and stage.train.patience is not None and context.student is not None:
        wanted = frozenset().union(*(term.student_outputs(context) for term in stage.objective))
        if not is_scored(wanted) or (context.outputs is None and "dev" not in recipe.task.files):
            problems = [f"stages[{index}].train.patience: the stage is not scored on dev, so there is nothing to wait for"]
    if not problems and stage.replacement is not None:
        problems = [f"stages[{index}].{key}: {text}" for key, text in replacement_problems(stage, context)]
    if not problems and context.student is not None:
        problems = [f"stages[{index}].{key}: {text}" for key, text in freeze_problems(stage, context)]
    return problems


def _beyond_answers(term: LossTerm, context: TermContext, impossible: bool) -> str | None:
    """Why a term asks more of a file of answers than it has; `impossible`, whether it has said itself that it cannot be."""
    name = context.teacher(getattr(term, "teacher", None))
    if not term.needs_teacher or name not in context.files or isinstance(term, LogitsMatch):
        return None
    if not impossible and term.teacher_outputs(context).get(name, frozenset()) <= {LOGITS}:
        return None
    told = f"{term.loss} compares what is inside a model, but '{name}' is a file, which has answers alone"
    return f"{told}; kd_ce and kd_mse learn them"


def _inside_reranker(term: LossTerm, context: TermContext) -> str | None:
    """Why a term asks more of a teacher that scores pairs than scores."""
    for name, outputs in term.teacher_outputs(context).items():
        if name in context.rerankers and outputs - {LOGITS}:
            return f"{term.loss} compares what two models make of a text, but '{name}' reads pairs of texts (kind: ranking)"
    return None


def freeze_problems(section: StageSection, context: TermContext) -> list[tuple[str, str]]:
    """Whether anything is left to train, as (key, message)."""
    if any(term.projections(context, "") for term in section.objective):
        return []
    wanted = frozenset().union(*(term.student_outputs(context) for term in section.objective))
    if all(is_frozen(context.student, name, section.freeze) for name in used_tensors(context.student, wanted)):
        return [("freeze", "nothing is left to train: the objective's tensors are all frozen")]
    return []



def projection_problems(
    sections: Sequence[StageSection], context: TermContext, present: dict[str, tuple[int, ...]]
) -> list[str]:
    """Projections of one name that are not one: of different shapes, be it that of a term or one that is `present` beside
    the student's first weights, of different kinds, or with different learning rates in a stage."""
    problems = []
    shapes = {name: (shape, "the weights of student.init.from") for name, shape in present.items()}
    kinds: dict[str, tuple[str, str]] = {}
    for index, section in enumerate(sections):
        rates: dict[str, tuple[float | None, str]] = {}
        for number, (term, label) in enumerate(zip(section.objective, term_labels(section.objective, section.name))):
            place = f"stages[{index}].objective[{number}].projection"
            for name, tensor in term.projections(context, label).items():
                own = name.rpartition(".")[0]
                shape, owner = shapes.setdefault(name, (tensor.shape, place))
                if shape != tensor.shape:
                    problems.append(f"{place}: {name} has shape {tensor.shape} here, and {shape} in {owner}")
                kind, owner = kinds.setdefault(own, (tensor.kind, place))
                if kind != tensor.kind:
                    problems.append(f"{place}.kind: {own} is {tensor.kind} here, and {kind} in {owner}")
                rate, owner = rates.setdefault(own, (tensor.learning_rate, place))
                if rate != tensor.learning_rate:
                    here, there = ("the stage's" if each is None else f"{each:g}" for each in (tensor.learning_rate, rate))
                    problems.append(f"{place}.learning_rate: that of {own} is {here} here, and {there} in {owner}")
    return list(dict.fromkeys(problems))  # a weight and its bias are one projection



def replacement_problems(section: StageSection, context: TermContext) -> list[tuple[str, str]]:
    """What makes a replacement impossible, as (key, message)."""
    student, predecessor = context.student, context.teachers[context.teacher(None)]
    kinds = {model_type(student), model_type(predecessor)}
    if len(kinds) > 1 or not is_encoder(student) or shares_layers(student):
        needed = "both models must be Transformers of one family, each layer with weights of its own"
        return [("replacement", f"{needed}; got {' and '.join(sorted(kinds))}")]
    problems = []
    layers, own = predecessor.num_hidden_layers, student.num_hidden_layers
    if layers % own:
        problems.append(
            ("replacement", f"the predecessor's {layers} layers cannot be cut into {own} equal modules, one a student layer")
        )
    if student.hidden_size != predecessor.hidden_size:
        sizes = f"student {student.hidden_size}, predecessor {predecessor.hidden_size}"
        problems.append(("replacement", f"the hidden sizes differ ({sizes}): modules could not stand in for each other"))
    for index, term in enumerate(section.objective):
        kinds = {name.split("/")[0] for name in term.student_outputs(context)}
        if kinds - {"logits", "pooled", "hidden"}:
            problems.append((f"objective[{index}].loss", f"{term.loss} needs attention, which replaced modules do not show"))
    return problems
