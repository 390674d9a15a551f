"""One stage of a job, ready for any engine: what is minimised, over which batches, and which parameters change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .data.batches import TrainBatches
from .losses.base import TermContext
from .models.architectures import Config, is_frozen, model_type, used_tensors
from .models.outputs import LOGITS, MASKED_WORDS, WORDS
from .models.spec import initial_tensor
from .models.theseus import Replacement
from .objective import Objective, Teachers, term_labels
from .optimizers import OptimizerSpec
from .sections import StageSection

PROJECTION_DEVIATION = 0.02


@dataclass
class Stage:
    """A checked stage of a recipe."""

    section: StageSection
    index: int
    config: Config
    """The student's configuration as it is trained: with the stage's dropout."""
    objective: Objective
    batches: TrainBatches

    @property
    def name(self) -> str:
        """As in the recipe."""
        return self.section.name

    @property
    def total(self) -> int:
        """Its optimizer steps."""
        return self.section.train.total_steps(self.batches.steps_per_epoch)

    @property
    def evaluated(self) -> bool:
        """Whether the student's answers mean something in this stage, so that the best ones can be kept."""
        return is_scored(self.objective.student_outputs)

    def new_projections(self, present: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        """First values of the projections that are not `present` already: weights N(0, 0.02) cut at two deviations,
        biases 0. That those present fit was checked before (`projection_problems`)."""
        return {
            name: initial_tensor(name, tensor.shape, PROJECTION_DEVIATION, seed)
            for name, tensor in self.objective.projections.items()
            if name not in present
        }

    def optimizer(self, parameters: dict[str, np.ndarray]) -> OptimizerSpec:
        """The stage's optimizer over those of `parameters` that the objective uses and the recipe does not freeze."""
        train, used = self.section.train, self.objective.used_tensors
        rates, frozen = self.objective.projections, self.section.freeze
        return OptimizerSpec(
            train.optimizer,
            train.beta1,
            train.beta2,
            train.epsilon,
            train.weight_decay,
            train.max_gradient_norm,
            trainable=frozenset(
                name
                for name in parameters
                if name in used and (name in rates or not is_frozen(self.config, name, frozen))
            ),
            clip_frozen=train.clip_scope == "all",
            rate_factors={
                name: tensor.learning_rate / train.learning_rate
                for name, tensor in rates.items()
                if tensor.learning_rate is not None
            },
            own=own.update if (own := train.own_optimizers.get(train.optimizer)) else None,
        )


def is_scored(outputs: frozenset[str]) -> bool:
    """Whether an objective over these outputs of the student trains answers that can be scored."""
    return bool(outputs & {LOGITS, WORDS, MASKED_WORDS})


def freeze_problems(section: StageSection, context: TermContext) -> list[tuple[str, str]]:
    """Whether anything is left to train, as (key, message)."""
    if any(term.projections(context, "") for term in section.objective):
        return []
    wanted = frozenset().union(*(term.student_outputs(context) for term in section.objective))
    if all(is_frozen(context.student, name, section.freeze) for name in used_tensors(context.student, wanted)):
        return [("freeze", "nothing is left to train: the objective's tensors are all frozen")]
    return []


def projection_problems(
    sections: Sequence[StageSection], context: TermContext, present: dict[str, np.ndarray]
) -> list[str]:
    """Projections of one name that are not one: of different shapes, be it that of a term or one that is `present` beside
    the student's first weights, of different kinds, or with different learning rates in a stage."""
    problems = []
    shapes = {name: (array.shape, "the weights of student.init.from") for name, array in present.items()}
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


def build_objective(section: StageSection, context: TermContext, teachers: Teachers) -> Objective:
    """The objective of a stage; `context.student` has the dropout that it is trained with. A predecessor has its own
    dropout, as in the published code, unless the stage sets it."""
    replacement = None
    if section.replacement is not None:
        chosen, predecessor = section.replacement, context.teachers[context.teacher(None)]
        if section.train.dropout is not None:
            predecessor = predecessor.with_dropout(section.train.dropout)
        replacement = Replacement(
            predecessor=predecessor,
            blocks=context.student.num_hidden_layers,
            schedule=chosen.schedule,
            rate=chosen.rate,
            until=chosen.until,
        )
    return Objective(section.objective, context, teachers, section.name, replacement)


def replacement_problems(section: StageSection, context: TermContext) -> list[tuple[str, str]]:
    """What makes a replacement impossible, as (key, message)."""
    student, predecessor = context.student, context.teachers[context.teacher(None)]
    if {model_type(student), model_type(predecessor)} != {"bert"}:
        return [("replacement", "both models must be BERT models")]
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
