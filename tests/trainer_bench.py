"""A training loop with a train step that computes nothing, on rows and recipes that are as small as they can be."""

from __future__ import annotations

import itertools
import json

import numpy as np

from crossdistil.core.data.batches import TrainBatches
from crossdistil.core.data.tokenize import TokenTable
from crossdistil.core.events import LiveSink, Sinks
from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.metric_lines import MetricLines
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.runs import RunFolder
from crossdistil.core.stages import Stage
from crossdistil.core.states import layout_of
from crossdistil.core.training import Evaluation, Trainer
from crossdistil.tests import tiny

IDENTITY = {"backend": "none", "device": "cpu", "precision": "fp32"}
LENGTHS = [3, 4, 5, 6, 7, 8, 9]  # 7 examples, 42 tokens


class CountingStep:
    """Its loss is ten times the step's number, its terms the loss times 2 and 3, the teacher's entropy the loss, the norm of the
    gradient the loss times 4, its parameter the number of steps."""

    communication, skips_overflow = 0.0, False

    def __init__(self, bad=None, norms=None):
        self.taken, self.calls, self.bad, self.norms = [], [], bad or {}, norms or {}
        self.position = 0

    def run(self, steps, count, dispatched):
        self.calls.append(count)
        rows = []
        for step in itertools.islice(steps, count):
            self.taken.append(step)
            self.position += 1
            dispatched(1)
            loss = self.bad.get(self.position, 10.0 * self.position)
            rows.append([loss, loss * 2, loss * 3, loss, self.norms.get(self.position, loss * 4)])
        self.values = np.array(rows, np.float32)
        return self

    def fetch(self):
        return self.values

    def parameters(self):
        return {"p": np.full(3, self.position, np.float32)}

    def not_finite(self):
        return next((name for name, array in self.parameters().items() if not np.isfinite(array).all()), None)

    def state(self):
        return {"moment": np.full(3, 2 * self.position, np.float32)}

    def state_layout(self):
        return layout_of(self.state())

    def restore(self, parameters, state):
        assert state["moment"][0] == 2 * parameters["p"][0]
        self.position = int(parameters["p"][0])


class Silent(LiveSink):
    def __init__(self):
        self.best, self.events = [], []

    def start(self, done, total):
        self.at, self.total = done, total

    def advance(self, done, tokens):
        self.at += 1
        assert self.at == done <= self.total and tokens > 0

    def logged(self, event):
        assert event.loss > 0
        self.events.append(event)

    def evaluate(self):
        """Told before `evaluated`."""

    def evaluated(self, event):
        self.best += [event.step] if event.best else []


class Bench:
    """Trainers on one run folder, each with a new train step, as after an interruption."""

    def __init__(self, folder, scores=(), **train):
        # 7 examples in batches of 4: two steps an epoch.
        settings = {"batch_size": 4, "log_every": 100, "save_every": 100, "learning_rate": 1.0} | train
        tree = tiny.kd_recipe(folder, folder, **settings)
        tree["stages"][0]["train"].pop("steps" if "epochs" in train else "epochs", None)
        self.recipe = parse_recipe(tree, "test")
        self.folder, self.scores = folder, scores
        self.evaluations = []

    def train(self, bad=None, resume=False, step=None, first=0, evaluated=True):
        section = self.recipe.stages[0]
        offsets = np.cumsum([0, *LENGTHS])
        table = TokenTable(np.arange(offsets[-1], dtype=np.int32), offsets, np.array(LENGTHS, np.int32))
        batches = TrainBatches(table, np.arange(7, dtype=np.int32) % 2, 4, 1, (16,), self.recipe.seed)
        context = TermContext(2, ONE_CLASS, tiny.CONFIG, {"teacher": tiny.CONFIG})
        objective = Objective(section.objective, context, Teachers({"teacher": 1.0}))
        stage = Stage(section, 0, tiny.CONFIG, objective, batches)
        self.step, self.progress = step or CountingStep(bad), Silent()
        run = RunFolder(self.folder / "run", self.recipe, IDENTITY, resume)

        def evaluate():
            self.evaluations.append(float(self.step.parameters()["p"][0]))
            scores = self.scores or [0.5]
            metrics = {"accuracy": scores[(len(self.evaluations) - 1) % len(scores)], "f1": 0.25}
            return Evaluation(metrics, np.float32(self.evaluations[-1:]))

        try:
            held = {"p": np.zeros(3, np.float32), "untrained": np.full(2, 3, np.float32)}
            tell = Sinks([MetricLines(run.append, run.append_watched), self.progress])
            trainer = Trainer(stage, self.recipe.seed, first, held, self.step, evaluate if evaluated else None, run, tell)
            state = run.load_state()
            return trainer.run(state)
        finally:
            run.close()

    def lines(self, key):
        text = (self.folder / "run" / "metrics.jsonl").read_text()
        return [line for line in map(json.loads, text.splitlines()) if key in line]
