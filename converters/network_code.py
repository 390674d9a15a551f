"""`network.py`: the network that a converted checkpoint belongs to, in the framework's own idiom, as one file to be copied into
a project. It is a template of `networks/` with the constants between its two marks replaced (what the checkpoint calls each
parameter, which keys of config.json are read, and which heads there are), followed by what all frameworks share. Encoders have a
template a framework, and BiLSTMs one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from .. import __version__
from ..core.errors import CheckpointError
from ..core.models.answer_heads import SENTENCES
from ..core.models.architectures import Config, head_names, is_encoder
from ..core.models.heads import Head, heads_of
from ..core.models.parts import EMBEDDINGS, ENCODER, LAYER, PAIRS, POOLER, TOKENS, WORDS, Part
from ..core.models.spec import EncoderConfig
from ..core.models.tree import head_parts, layer_template, present, unused_shapes
from ..core.static_tables import relative_buckets
from .canonical import CanonicalCheckpoint
from .dialects import DIALECTS
from .layouts import Layout
from .names_canonical import tied_of
from .names_tensorflow import generator_name
from .network_templates import filled_in
from .networks.shared_encoder import ACTIVATIONS
from .projections import PROJECTION

NETWORK = "network.py"
_TITLES = {"pytorch": "PyTorch", "tf": "TensorFlow", "mindspore": "MindSpore", "oneflow": "OneFlow"}
_PARTS = {
    "pytorch": {"norm": ("weight", "bias"), "table": ("weight",), "dense": ("weight", "bias")},
    "mindspore": {"norm": ("gamma", "beta"), "table": ("embedding_table",), "dense": ("weight", "bias")},
    "tf": {"norm": ("gamma", "beta"), "table": ("embeddings",), "dense": ("kernel", "bias")},
}
_PARTS["oneflow"] = _PARTS["pytorch"]
"""Framework -> kind of layer -> what its modules call their parameters, the weight first."""
_WEIGHTS = {
    "pytorch": {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"},
    "tf": {"google": "bert_model.ckpt"},
    "mindspore": {"ckpt": "model.ckpt", "ckpt-old": "model.ckpt", "safetensors": "model.safetensors"},
    "oneflow": {"state-dict": "weights"},
}
"""Framework -> layout -> what is loaded, beside the file."""
_FAMILIES = {"Bert": "BERT", "DistilBert": "DistilBERT", "Albert": "ALBERT", "Electra": "ELECTRA", "Roberta": "RoBERTa"}
_FAMILIES |= {"XLMRoberta": "XLM-R", "Camembert": "CamemBERT", "Ernie": "ERNIE"}
"""What transformers' classes start with -> how it is written."""
_KEYS = (
    "vocab_size hidden_size embedding_size num_hidden_layers num_attention_heads intermediate_size hidden_act "
    "hidden_dropout_prob attention_probs_dropout_prob head_dropout max_position_embeddings type_vocab_size "
    "layer_norm_eps num_hidden_groups inner_group_num task_type_vocab_size relative_attention_num_buckets"
).split()
_BILSTM_KEYS = "vocab_size embedding_size hidden_size fully_connected_size dropout".split()
_EMBEDDINGS = ("words", "positions", "types", "tasks", "embeddings_norm", "projection")
_LAYER = (
    "query", "key", "value", "attention_output", "attention_norm", "intermediate", "output", "output_norm"
)  # fmt: skip
_MODULES = {"attention_output": "attention", "intermediate": "inner", "output": "outer", "output_norm": "outer_norm"}
"""Role of a part -> what the networks call its module, where that is not the same."""
_SAME = {"embedding_size": "hidden_size", "head_dropout": "classifier_dropout"}
"""Setting -> the one that stands for it in families without a key for it."""


def weights_name(to: str, layout: str) -> str:
    """The file or folder that is loaded beside the network; of a layout that is not, the framework's name."""
    return _WEIGHTS[to].get(layout, _TITLES[to])


def check_code(to: str, layout: str, config: Config) -> None:
    """Raises CheckpointError for a layout that is not loaded by modules, and for a model that the networks do not compute."""
    if is_encoder(config) and (reason := _not_computed(config)):
        raise CheckpointError(
            f"--with-code: no network is written for a {config.family.title}: {reason}; crossdistil export MODEL NEW --to onnx "
            "makes a folder for ONNX Runtime"
        )
    if is_encoder(config) and config.hidden_act not in ACTIVATIONS:
        raise CheckpointError(f"--with-code: hidden_act is {config.hidden_act}, which the networks do not compute")
    if layout not in _WEIGHTS[to]:
        known = ", ".join(_WEIGHTS[to])
        raise CheckpointError(f"--layout {layout}: no module of {_TITLES[to]} loads it; --with-code takes {known}")


def _not_computed(config: EncoderConfig) -> str:
    """What of a model the networks do not compute; an empty string where they compute all."""
    if config.family.block.normalised_before:
        return "its layers are normalised before and not after"
    if config.distance_terms or config.score_terms > 1:
        return "its scores have terms of two tokens' content and distance"
    parts = [part for place in (EMBEDDINGS, ENCODER, LAYER) for part in present(config, place)]
    roles = [part.role for part in parts]
    if others := [role for role in roles if role not in (*_EMBEDDINGS, *_LAYER, "relative_positions")]:
        return f"it has a part that BERT has not ({others[0].replace('_', ' ')})"
    if missing := [role for role in ("words", "positions", *_LAYER) if role not in roles]:
        return f"it lacks a part of BERT's ({missing[0].replace('_', ' ')})"
    return "not all of its maps have a bias" if any(part.biased is not None for part in parts) else ""


def network_code(checkpoint: CanonicalCheckpoint, to: str, name: str, layout: Layout, stored: Collection[str]) -> str:
    """The text of `network.py`. `name` is that of the layout, `stored` the names in the checkpoint that was written. Raises
    CheckpointError where the network would not have exactly these."""
    if not is_encoder(checkpoint.config):
        return filled_in(to, "bilstm", _bilstm_constants(checkpoint, to, name), _title(checkpoint, to))
    constants, turned = _constants(checkpoint, to, layout.dialect), []
    for own, (foreign, transpose) in constants["NAMES"].items():
        constants["NAMES"][own] = foreign
        # Google's kernels are (in, out), as Keras has them; what is not transposed there is (out, in).
        if to == "tf" and own.endswith(".kernel") and not transpose:
            turned.append(own)
    if to == "tf":
        constants["TURNED"] = turned
    constants["WEIGHTS"] = _WEIGHTS[to][name]
    own = {_filled(foreign, checkpoint.config, layer) for foreign in constants["NAMES"].values() for layer in _layers(checkpoint)}
    beside = {DIALECTS[layout.dialect].table(checkpoint.family).foreign(name)[0] for name in unused_shapes(checkpoint.config)}
    constants["BESIDE"] = sorted(name for name in stored if name not in own and (name in beside or _is_projection(name)))
    if (others := sorted(set(stored) - own - set(constants["BESIDE"]))) or (others := sorted(own - set(stored))):
        raise CheckpointError(f"--with-code: the network has no place for {others[0]}, or needs it and it is not there")
    return filled_in(to, "network", constants, _title(checkpoint, to))


def _bilstm_constants(checkpoint: CanonicalCheckpoint, to: str, name: str) -> dict[str, Any]:
    """A BiLSTM's tensors have the same names in all frameworks, for none has a network of this kind."""
    values = {key: getattr(checkpoint.config, key) for key in _BILSTM_KEYS}
    return {
        "WEIGHTS": _WEIGHTS[to][name],
        "HEADS": {"logits": checkpoint.outputs},
        "TASK": checkpoint.task and checkpoint.task.name,
        "PAIRS": checkpoint.config.pairs,
        "KEYS": {key: (key if _says(checkpoint.raw, key, value) else None, value) for key, value in values.items()},
    }


def _title(checkpoint: CanonicalCheckpoint, to: str) -> str:
    what = {"logits": "a classifier", "words": "a head for words", "pairs": "one for pairs", "replaced": "one for replaced words"}
    if is_encoder(checkpoint.config):
        heads = " and ".join(what[name] for name in _heads(checkpoint)) or "no head"
        title = _FAMILIES.get(checkpoint.config.family.title, checkpoint.config.family.title)
    else:
        heads, title = f"a classifier of {'pairs' if checkpoint.config.pairs else 'texts'}", "BiLSTM"
    return (
        f"{title} with {heads} in {_TITLES[to]}, for the weights beside this file.\n\n"
        f"Written by crossdistil {__version__}: `crossdistil convert --to {to} --with-code`.\n"
        f"It needs {_needs(to)}, and nothing of crossdistil.\n"
        " `python network.py 101 2023 102` prints what the model answers for these token ids;\n"
        "`from network import load` gives the network itself."
    )


def _needs(to: str) -> str:
    return {"pytorch": "PyTorch (and safetensors, if the weights are such)", "tf": "TensorFlow"}.get(to, f"{_TITLES[to]}, NumPy")


def _constants(checkpoint: CanonicalCheckpoint, to: str, dialect: str) -> dict[str, Any]:
    config = checkpoint.config
    names = {}
    rules = {rule.canonical: rule for rule in DIALECTS[dialect].table(config.family.model_type).rules}
    for own, kind, canonical in _modules(checkpoint):
        own_parts, parts = _PARTS[to][kind], ("weight",) if kind == "table" else ("weight", "bias")
        for own_part, part in zip(own_parts, parts):
            if canonical.endswith(":weight") and part == "bias":  # a decoder that is not tied has none of its own
                continue
            rule = rules[canonical.removesuffix(":weight") + f".{part}"]
            names[f"{own}.{own_part}"] = (_named_places(rule.foreign), rule.transpose)
    if to == "tf" and checkpoint.heads == ("generator",):
        names = {own: (generator_name(name), transpose) for own, (name, transpose) in names.items()}
    head = _words_head(config, checkpoint.heads)
    if head is not None:
        rule = rules[head.last_bias]
        names["words_bias"] = (rule.foreign, rule.transpose)
    return {
        "FAMILY": config.family.model_type,
        "WEIGHTS": "",
        "HEADS": _heads(checkpoint),
        "TASK": checkpoint.task and checkpoint.task.name,
        "POOLER": config.pooler_activation,
        "POOLER_DROPOUT": config.family.pooler_dropout and checkpoint.task == SENTENCES,
        "FIRST": config.first_position,
        **_distances(config),
        "KEYS": _keys(config, checkpoint.raw, head),
        "NAMES": names,
        "BESIDE": [],
    }


def _distances(config: EncoderConfig) -> dict[str, Any]:
    """At which distances a row of its own begins, and how many rows a direction has; nothing of families without such a table."""
    buckets, farthest = config.family.block.relative_buckets, config.family.block.farthest
    if not buckets:
        return {"HALF": 0, "EDGES": []}
    behind = relative_buckets(config.positions, buckets, farthest)[:, 0].tolist()
    return {"HALF": buckets // 2, "EDGES": [place for place in range(1, len(behind)) if behind[place] != behind[place - 1]]}


def _heads(checkpoint: CanonicalCheckpoint) -> dict[str, int]:
    """Output -> its last size, in order."""
    own = heads_of(checkpoint.config.family)
    kinds = {WORDS: ("words", checkpoint.config.vocab_size), PAIRS: ("pairs", 2), TOKENS: ("replaced", 1)}
    heads = {} if checkpoint.task is None else {"logits": checkpoint.outputs}
    return heads | dict(kinds[own[name].kind] for name in checkpoint.heads)


def _words_head(config: EncoderConfig, heads: Collection[str]) -> Head | None:
    own = heads_of(config.family)
    return next((own[name] for name in heads if own[name].kind == WORDS), None)


def _modules(checkpoint: CanonicalCheckpoint) -> list[tuple[str, str, str]]:
    """(its name here, kind of layer, template of its canonical name) of each module that the checkpoint has the tensors of."""
    config, family = checkpoint.config, checkpoint.config.family
    prefix = layer_template(family)
    modules = [
        (f"encoder.{{layer}}.{_MODULES.get(part.role, part.role)}", part.kind, prefix + part.name)
        if part.place == LAYER
        else (_MODULES.get(part.role, part.role), part.kind, part.name)
        for part in (*family.at(EMBEDDINGS, LAYER, ENCODER), *_poolers(checkpoint))
    ]
    if checkpoint.task is not None:
        last = head_names(config.answering(checkpoint.task))[0].removesuffix(".weight")
        modules.append(("classifier", "dense", last))
    for name in checkpoint.heads:
        head = heads_of(family)[name]
        if head.kind == WORDS:
            modules += [("words_dense", "dense", head.transform), ("words_norm", "norm", head.norm)]
            if f"{head.last}.weight" in tied_of(family.model_type):
                modules.append(("decoder", "dense", f"{head.last}:weight"))
        elif head.kind == PAIRS:
            modules.append(("pairs", "dense", head.last))
        else:
            modules += [("replaced_dense", "dense", head.transform), ("replaced", "dense", head.last)]
    present = {re.sub(r"\.[0-9]+\.", ".{}.", re.sub(r"\.[0-9]+\.", ".{}.", name)) for name in checkpoint.tensors}
    return [module for module in modules if module[2].removesuffix(":weight") + ".weight" in present]


def _poolers(checkpoint: CanonicalCheckpoint) -> list[Part]:
    """Those of its head, and of its encoder."""
    family, head = checkpoint.config.family, checkpoint.task or SENTENCES
    return list(dict.fromkeys([*(part for part in head_parts(family, head) if part.place == POOLER), *family.at(POOLER)]))


def _keys(config: EncoderConfig, raw: dict[str, Any], head) -> dict[str, tuple[str | None, Any]]:
    """BERT's name of a setting -> (its key in config.json, its value where that says nothing). Without a key it is fixed."""
    keys, fields = {}, type(config).model_fields
    for name in _KEYS:
        if hasattr(config, name):
            same = (config.own_key(name), config.own_key(_SAME.get(name, name)))
            keys[name] = (next((key for key in same if key in fields), None), getattr(config, name))
    words = head.activation if head is not None and head.activation else None
    keys["words_act"] = (None, words) if words else keys["hidden_act"]
    keys["classifier_relu"] = ("classifier_relu", config.relu_before_classifier)
    return {name: (key if _says(raw, key, value) else None, value) for name, (key, value) in keys.items()}


def _says(raw: dict[str, Any], key: str | None, value: Any) -> bool:
    """Whether a key of config.json stands for this value, by its own name and type."""
    return key in raw and type(raw[key]) is type(value) and raw[key] == value


def _layers(checkpoint: CanonicalCheckpoint) -> range:
    """Numbers of the layers that have tensors of their own."""
    config = checkpoint.config
    groups = getattr(config, "num_hidden_groups", None)
    return range(config.num_hidden_layers if groups is None else groups * config.inner_group_num)


def _named_places(template: str) -> str:
    places = ["{group}", "{inner}"] if template.count("{}") == 2 else ["{layer}"]
    for place in places:
        template = template.replace("{}", place, 1)
    return template


def _filled(template: str, config: Config, layer: int) -> str:
    inner = getattr(config, "inner_group_num", 1)
    return template.format(layer=layer, group=layer // inner, inner=layer % inner)


def _is_projection(name: str) -> bool:
    return name.replace("/", ".").startswith(PROJECTION)
