"""One stage of a job, ready for any engine: what is minimised, over which batches, and which parameters change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .data.batches import MoreArrays, TrainBatches
from .losses.base import TermContext
from .models.architectures import Config, is_frozen
from .models.outputs import EMBEDDING, LOGITS, MASKED_WORDS, WORDS
from .models.spec import initial_tensor
from .models.theseus import Replacement
from .objective import Objective, Teachers
from .optimizers import OptimizerSpec
from .stage_section import StageSection

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

    def from_cache(self, outputs: MoreArrays) -> Stage:
        """The same stage with the teachers' outputs in its batches, as `outputs(rows, length)` gives them."""
        return replace(self, objective=self.objective.from_cache(), batches=self.batches.with_arrays(outputs))

    @property
    def evaluated(self) -> bool:
        """Whether the student's answers mean something in this stage, so that the best ones can be kept."""
        return is_scored(self.objective.student_outputs)

    def new_projections(self, present: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        """First values of the projections that are not `present` already: weights N(0, 0.02) cut at two deviations,
        biases 0. That those present fit was checked before (`core.stage_problems`)."""
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
    return bool(outputs & {LOGITS, EMBEDDING, WORDS, MASKED_WORDS})


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
