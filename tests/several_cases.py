"""What is trained by one process and by several, and must give the same numbers: a case a line.

A case is a recipe of the catalogue with changes. All share the settings of `COMMON`: batches of 12 of 44 texts, so that the last
step of an epoch is incomplete; lengths that differ between the parts of a step; no dropout.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path

from crossdistil.core.recipe import Recipe, parse_recipe, recipe_tree
from crossdistil.core.recipe_overrides import set_all

STEPS = 6
# An epsilon far above rounding: with a small one, Adam turns the sign of a gradient that is zero but for rounding (that of a
# key's bias, on which no loss depends) into a whole step.
COMMON = {
    "steps": STEPS,
    "epochs": None,
    "batch_size": 12,
    "learning_rate": 1e-2,
    "epsilon": 1e-2,
    "dropout": 0.0,
    "log_every": 1000,
    "save_every": 1000,
    "length_buckets": [8, 16],
}
TASK = {"task.name": "sst-2", "task.data": "{files}/task", "task.max_length": 16}
CORPUS = {"task.data": "{files}/corpus.txt", "task.max_length": 16}
TEACHER = {"teacher.model": "{files}/teacher", "teacher_cache.use": "never"}
STUDENT = {"student.architecture": {"num_hidden_layers": 2}, "student.init": {"from": "teacher", "layers": [1, 3]}}
NARROW = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24}
FROM_RANDOM = {"student.architecture": NARROW, "student.init": {"from": "random"}}
WORDS = {"student.architecture": {"num_hidden_layers": 1}, "student.init": {"from": "teacher", "layers": [1]}}
LAYERS = [[0, 0], [2, 1], [4, 2]]
TAUGHT = [{"loss": "kd_ce", "weight": 0.5, "temperature": 2}, {"loss": "hard_label", "weight": 0.5}]

RECIPES = {
    "finetune": TASK | {"student.init": {"from": "{files}/teacher"}},
    "kd": TASK | TEACHER | STUDENT,
    "pkd": TASK | TEACHER | STUDENT,
    "tinybert_gd": CORPUS | TEACHER | FROM_RANDOM,
    "tinybert_td": TASK | TEACHER | STUDENT,
    "minilm": TASK | TEACHER | STUDENT,
    "theseus": TASK | TEACHER | STUDENT | {"student.init": {"from": "teacher", "layers": [0, 1]}},
    "t4tiny": TASK | TEACHER | FROM_RANDOM
    | {
        "stages.0.objective": [
            {"loss": "kd_ce", "temperature": 8, "temperature_squared": False},
            {"loss": "hidden_mse", "layers": LAYERS, "projection": {"kind": "linear", "learning_rate": 3e-2}},
            {"loss": "mmd", "layers": LAYERS},
        ]
    },
    "bilstm": TASK | TEACHER
    | {
        "student.architecture": {
            "model_type": "bilstm", "embedding_size": 12, "hidden_size": 8, "fully_connected_size": 10, "dropout": 0.0
        },
        "student.words": {"vocabulary": 100, "max_length": 16},
    },
    "mlm": CORPUS | {"student.init": {"from": "{files}/writer"}},
    "distilbert": CORPUS | TEACHER | WORDS | {"teacher.model": "{files}/writer"},
    # The texts of a step are compared with each other, those of other parts and processes too.
    "embedding": TEACHER | STUDENT
    | {
        **{"teacher.model": "{files}/embedder", "task.name": "alike", "task.data": "{files}/sentences", "task.max_length": 16},
        **{"task.files": {"train": "triplets.jsonl"}, "task.text": "a", "task.text_pair": "b", "task.label": "alike"},
        "task.embeddings": {"examples": "pairs", "scores": [0, 4]},
        "stages.0.objective": [{"loss": "contrastive"}, {"loss": "similarity_kl"}, {"loss": "sentence_mse"}],
    },
    # Units of a step are its words, its windows and its candidates.
    "ner": TEACHER | STUDENT
    | {
        **{"teacher.model": "{files}/namer", "task.name": "names", "task.data": "{files}/names", "task.max_length": 16},
        "stages.0.objective": TAUGHT,
    },
    "qa": TEACHER | STUDENT
    | {
        **{"teacher.model": "{files}/answerer", "task.name": "words", "task.data": "{files}/questions"},
        **{"task.max_length": 12, "task.answers": {"stride": 4}, "stages.0.objective": TAUGHT},
    },
    "reranker": TEACHER | STUDENT
    | {
        **{"teacher.model": "{files}/scorer", "task.name": "sides", "task.data": "{files}/rankings", "task.max_length": 16},
        "task.ranking": {"candidates": 4},
        "stages.0.objective": [{"loss": "ranking_bce", "weight": 0.5}, {"loss": "ranking_margin_mse", "by": "teacher"}],
    },
}  # fmt: skip
"""Of each recipe of the catalogue, what makes it tiny."""


@dataclass(frozen=True)
class Case:
    """A recipe that is trained for a few steps, all its stages, and how near several processes must come to one."""

    recipe: str
    changes: dict = field(default_factory=dict)
    """Key -> value, beside those of `RECIPES`; None takes one of those away."""
    train: dict = field(default_factory=dict)
    """Changes of each stage's `train` section."""
    engine: dict = field(default_factory=dict)
    """Options of the engine."""
    loss: float = 1e-6
    """Largest difference of a loss value, relative."""
    weights: float = 1e-5
    """Largest difference of a weight, relative to the largest weight."""
    backends: tuple[str, ...] = ("torch", "oneflow", "mindspore")
    """Those that it is for, with two processes."""
    bucket_bytes: int | None = None
    """Of torch, the size of the buckets that gradients are summed in; on a CPU there is one bucket unless given."""

    def load(self, files: Path, length_step: int | None) -> Recipe:
        """The recipe on these files. Where each shape is compiled, all batches have one."""
        tree = {key: copy.deepcopy(value) for key, value in _read(self.recipe).items() if key != "presets"}
        settings = COMMON | ({"length_buckets": [16]} if length_step is None else {}) | self.train
        changes = RECIPES[self.recipe] | self.changes
        changes = {key: value for key, value in changes.items() if value is not None}
        for index in range(len(tree["stages"])):
            changes |= {f"stages.{index}.train.{key}": value for key, value in settings.items()}
        set_all(tree, [(key, _placed(value, files), key) for key, value in changes.items()])
        return parse_recipe(tree, self.recipe)


_read = functools.cache(recipe_tree)


def _placed(value, files: Path):
    """A copy of the value, with the folder's name where it stands in a text."""
    return json.loads(json.dumps(value).replace("{files}", str(files)))


def scheduled(kind: dict) -> dict:
    """Soft targets whose temperatures depend on all examples of a step."""
    return {
        "stages.0.objective": [
            {"loss": "kd_ce", "temperature": 8, "temperature_schedule": kind, "weight": 0.5},
            {"loss": "kd_mse", "temperature": 8, "temperature_schedule": kind, "probability_shift": True},
            {"loss": "hard_label"},
        ]
    }


PADDING = {
    "stages.0.objective.0.mask_padding": False,
    "stages.0.objective.0.clamp": True,
    "stages.0.objective.1.mask_padding": False,
}
SHIFT = [{"loss": "kd_ce", "temperature": 4, "probability_shift": True}, {"loss": "hard_label"}]
COLUMNS = {"task.text": "text", "task.label": "label"}
TOPICS = COLUMNS | {"task.name": "topics", "task.kind": "multi_label", "task.data": "{files}/topics"}
SCORES = COLUMNS | {"task.name": "scores", "task.kind": "regression", "task.data": "{files}/scores"}
FEW = {
    "task.data": "{files}/few",
    "aux_data": [{"name": "more", "data": "{files}/more", "text": "text", "label": "label", "max_length": 16}],
}
TWO_TEACHERS = {
    "teacher.model": None,
    "teachers.a.model": "{files}/teacher",
    "teachers.b.model": "{files}/other",
    "teachers.b.weight": 3,
    "stages.0.objective": [{"loss": "kd_ce"}, {"loss": "hidden_mse", "layers": [[2, 1]], "teacher": "b"}],
}

# Where graphs are compiled, by two processes and by one, the time it takes grows with their layers.
SHALLOW = {
    "teacher.model": "{files}/shallow",
    "student.architecture": {"num_hidden_layers": 1},
    "student.init": {"from": "teacher", "layers": [0]},
}
COMPILED = ("mindspore",)

LONELY = ("kd", "tinybert_td", "t4tiny", "distilbert")
CONSTANT = {"schedule": "constant", "warmup": 0}
# A margin's loss is the square of a difference of two differences of logits.
_LOSSES = {"reranker": 5e-6}

PLAIN: dict[str, Case] = {
    **{name: Case(name, loss=_LOSSES.get(name, 1e-6)) for name in RECIPES},
    **{
        f"{name} in 3 parts": Case(name, train={"gradient_accumulation": 3}, loss=_LOSSES.get(name, 1e-6)) for name in RECIPES
    },
    # Two processes sum two gradients in the order of one process.
    "dropout in 2 parts": Case(
        "kd", train={"gradient_accumulation": 2, "dropout": 0.3}, loss=0, weights=0, backends=("torch",)
    ),
    "dropout in 3 parts": Case("kd", train={"gradient_accumulation": 3, "dropout": 0.3}, backends=()),  # of 3 processes
    "dropout": Case("kd", train={"gradient_accumulation": 4, "dropout": 0.3}),
    "dropout of two stages": Case("minilm", train={"gradient_accumulation": 4, "dropout": 0.3}),
    "dropout of a teacher": Case("kd", {"teacher_dropout": True}, train={"gradient_accumulation": 4, "dropout": 0.3}),
    "dropout of replaced modules": Case("theseus", train={"gradient_accumulation": 4, "dropout": 0.3}),
    "dropout of texts compared": Case("embedding", train={"gradient_accumulation": 4, "dropout": 0.3}),
    "masked words with dropout": Case("mlm", train={"gradient_accumulation": 4, "dropout": 0.3}),
    # An epoch's last step has one text, and the other processes none.
    **{f"{name} without a text": Case(name, train={"batch_size": 43}) for name in LONELY},
    # The square of a difference of two logits, of one text.
    "bilstm without a text": Case("bilstm", train={"batch_size": 43}, loss=5e-6),
    "flsw without a text": Case("kd", scheduled({"kind": "flsw", "beta": 1, "gamma": 2}), train={"batch_size": 43}),
    "flsw": Case("kd", scheduled({"kind": "flsw", "beta": 1, "gamma": 2})),
    "cwsm": Case("kd", scheduled({"kind": "cwsm", "beta": 2})),
    "flsw with dropout": Case(
        "kd",
        scheduled({"kind": "flsw", "beta": 1, "gamma": 2}),
        train={"gradient_accumulation": 4, "dropout": 0.3},
    ),
    "padding counts": Case("tinybert_td", PADDING),
    "padding counts in 3 parts": Case("tinybert_td", PADDING, train={"gradient_accumulation": 3}),
    "shift": Case("kd", {"stages.0.objective": SHIFT}),
    "several labels": Case(
        "kd",
        TOPICS
        | {"teacher.model": "{files}/tagger", "stages.0.objective": [{"loss": "kd_multi_label"}, {"loss": "hard_label"}]},
    ),
    "regression": Case(
        "kd", SCORES | {"teacher.model": "{files}/scorer", "stages.0.objective": [{"loss": "kd_mse"}, {"loss": "hard_label"}]}
    ),
    "few labels": Case("kd", FEW),
    "few labels and nothing else": Case("kd", FEW | {"stages.0.objective": [{"loss": "hard_label"}]}),
    "two teachers": Case("kd", TWO_TEACHERS),
    "frozen embeddings": Case("kd", {"stages.0.freeze": ["embeddings"]}),
    "all gradients in the norm": Case("theseus", train={"clip_scope": "all"}),
    "bert_adam": Case("kd", train={"optimizer": "bert_adam", "learning_rate": 1e-3}),
    "adadelta": Case("kd", train={"optimizer": "adadelta", "learning_rate": 1.0, "beta2": 0.95}),
    "weights that change": Case(
        "kd",
        {
            "stages.0.objective.0.weight_schedule": "linear_decay",
            "stages.0.objective.1.weight_schedule": "linear_growth",
        },
    ),
    "bf16": Case("kd", engine={"precision": "bf16"}, loss=2e-2, weights=2e-2, backends=("torch",)),
    "bf16 with equal parts": Case(
        "kd", train={"gradient_accumulation": 4}, engine={"precision": "bf16"}, backends=("torch",)
    ),
    # Each process meets the lengths in an order of its own, so that their sinks end at other steps.
    "sinks of several lengths": Case(
        "kd", SHALLOW, train={"length_buckets": [8, 16], "steps": 12}, engine={"steps_per_call": 5}, backends=COMPILED
    ),
    "shallow in 3 parts": Case("kd", SHALLOW, train={"gradient_accumulation": 3}, backends=COMPILED),
    "shallow theseus": Case("theseus", SHALLOW, backends=COMPILED),
    "shallow flsw with dropout": Case(
        "kd",
        SHALLOW | scheduled({"kind": "flsw", "beta": 1, "gamma": 2}),
        train={"gradient_accumulation": 4, "dropout": 0.3},
        backends=COMPILED,
    ),
    "constant rate": Case("kd", train=CONSTANT),
    # Adadelta with a huge epsilon: p = p - g.
    "gradient": Case(
        "kd",
        train=CONSTANT
        | {"steps": 1, "optimizer": "adadelta", "epsilon": 1e12, "learning_rate": 1.0}
        | {"weight_decay": 0.0, "max_gradient_norm": None},
    ),
    "a small epsilon": Case("kd", train={"epsilon": 1e-6, "learning_rate": 1e-4}, loss=1e-5, weights=1e-3),
}
# With parts that take no part in a step, with several micro-batches, with a micro-batch without any labelled row.
BUCKETS = ("kd", "kd in 3 parts", "theseus", "theseus in 3 parts", "kd without a text", "few labels and nothing else", "flsw")
CASES = PLAIN | {
    f"{name} in buckets": dataclasses.replace(PLAIN[name], bucket_bytes=4096, backends=("torch",)) for name in BUCKETS
}
"""By name. `NAME in buckets` is the case NAME otherwise."""

LONG = {name: case for name, case in CASES.items() if name.removesuffix(" in 3 parts") in RECIPES} | {
    f"{name} with dropout": Case(name, train={"gradient_accumulation": 4, "dropout": 0.3}) for name in RECIPES
}
"""What `benchmarks/processes.py` trains for longer: each recipe in one part, in three, and in four with dropout."""


def case_of(name: str) -> Case:
    """The case of a name, which may end in ` for N steps`."""
    name, _, steps = name.partition(" for ")
    case = (CASES | LONG)[name]
    return dataclasses.replace(case, train=case.train | {"steps": int(steps.split()[0])}) if steps else case
