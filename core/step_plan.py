"""After which steps of a stage something is to be done: a log line, an evaluation, a saved state, a kept epoch."""

from __future__ import annotations

from dataclasses import dataclass

from .train_section import TrainSection


@dataclass(frozen=True)
class Plan:
    """The events of a stage, all in optimizer steps."""

    total: int
    steps_per_epoch: int
    log_every: int
    evaluate_every: int
    save_every: int
    keep_every: int | None = None

    @classmethod
    def of(cls, train: TrainSection, steps_per_epoch: int) -> Plan:
        """The plan of a recipe's `train` section; without `evaluate_every` there is an evaluation after each epoch."""
        total = train.total_steps(steps_per_epoch)
        keep = None if train.keep_states is None else steps_per_epoch
        return cls(total, steps_per_epoch, train.log_every, train.evaluate_every or steps_per_epoch, train.save_every, keep)

    def next_event(self, step: int) -> int:
        """The first step after `step` after which something is to be done."""
        periods = filter(None, (self.log_every, self.evaluate_every, self.save_every, self.keep_every))
        return min(self.total, *(step + period - step % period for period in periods))
