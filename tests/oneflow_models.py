"""BERT and DistilBERT as modules of OneFlow, to be the referee of conversions: what `oneflow.load` and a strict `load_state_dict`
accept, and what these modules then compute.

OneFlow 0.9 has PyTorch's modules, so the modules are named after Hugging Face's. Its earlier versions had no modules, only
variables in a folder, and programs that looked them up by name; `legacy_outputs` is such a program, in the orientation that
these had from TensorFlow (x @ W). Nothing here knows the converters' tables.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oneflow as flow
from oneflow import nn


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Random weights, normalisations included, of a size that a trained model has."""
    generator = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        scale = 0.2 if parameter.ndim == 1 else min(0.2, 1.5 / np.sqrt(parameter.shape[1]))
        centre = 1.0 if name.lower().replace("_", "").endswith("layernorm.weight") else 0.0
        parameter.data.copy_(flow.tensor(generator.normal(centre, scale, tuple(parameter.shape)).astype(np.float32)))


def load_strictly(model: nn.Module, folder: Path) -> None:
    """Load what `oneflow.load` finds; it raises unless that is exactly the model's parameters, of the same shapes."""
    state = flow.load(str(folder))
    assert set(state) == set(model.state_dict())
    model.load_state_dict(state, strict=True)


def activation(name: str):
    """What a configuration's `hidden_act` means."""
    functions = {"gelu": lambda x: flow._C.gelu(x), "gelu_new": lambda x: flow._C.gelu_with_approximate(x, "tanh")}
    return {**functions, "relu": flow.relu}[name]


def attend(query, key, value, mask, heads: int):
    """Multi-head attention of (batch, length, width); `mask` is 1 where a token is."""
    batch, length, width = query.shape

    def split(x):
        return x.reshape(batch, length, heads, width // heads).permute(0, 2, 1, 3)

    scores = flow.matmul(split(query), split(key).transpose(-1, -2)) / (width // heads) ** 0.5
    weights = flow.softmax(scores + (1.0 - mask.reshape(batch, 1, 1, length)) * -10000.0, dim=-1)
    return flow.matmul(weights, split(value)).permute(0, 2, 1, 3).reshape(batch, length, width)


def inputs(batch: dict[str, np.ndarray]):
    return tuple(flow.tensor(batch[name]) for name in ("input_ids", "token_type_ids", "attention_mask"))


def named(hidden, pooled=None, **others) -> dict[str, np.ndarray]:
    """Outputs under the names that the reference gives them, as arrays."""
    found = {f"hidden/{layer}": state for layer, state in enumerate(hidden)}
    found |= {name: value for name, value in {"pooled": pooled, **others}.items() if value is not None}
    return {name: value.numpy() for name, value in found.items()}


class Parts(nn.Module):
    """Modules under the names given, where Hugging Face has one only to hold others."""

    def __init__(self, **parts: nn.Module):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Bias(nn.Module):
    """A decoder that is tied to the word embeddings has a bias of its own and nothing else."""

    def __init__(self, size: int, **parts: nn.Module):
        super().__init__()
        self.bias = nn.Parameter(flow.zeros(size))
        for name, part in parts.items():
            self.add_module(name, part)


def embeddings(config, **tables: int) -> Parts:
    made = {f"{kind}_embeddings": nn.Embedding(rows, config.hidden_size) for kind, rows in tables.items()}
    return Parts(**made, LayerNorm=nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps))


def merged(config, inner: int) -> Parts:
    norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
    return Parts(dense=nn.Linear(inner, config.hidden_size), LayerNorm=norm)


class BertLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden = config.hidden_size
        maps = Parts(**{name: nn.Linear(hidden, hidden) for name in ("query", "key", "value")})
        self.attention = Parts(output=merged(config, hidden))
        self.attention.add_module("self", maps)
        self.intermediate = Parts(dense=nn.Linear(hidden, config.intermediate_size))
        self.output = merged(config, config.intermediate_size)
        self.heads, self.activation = config.num_attention_heads, activation(config.hidden_act)

    def forward(self, x, mask):
        maps, output = self.attention.self, self.attention.output
        attended = attend(maps.query(x), maps.key(x), maps.value(x), mask, self.heads)
        x = output.LayerNorm(output.dense(attended) + x)
        return self.output.LayerNorm(self.output.dense(self.activation(self.intermediate.dense(x))) + x)


class Bert(nn.Module):
    """With both `heads` of pre-training and, with `outputs`, a classifier. With `copies` its state also has what a port of
    transformers' code saves: the decoder's copies of what it is tied to, and the buffer of positions."""

    def __init__(self, config, outputs: int | None = None, copies: bool = False, heads: bool = True):
        super().__init__()
        hidden = config.hidden_size
        parts = embeddings(
            config, word=config.vocab_size, position=config.max_position_embeddings, token_type=config.type_vocab_size
        )
        layers = nn.ModuleList([BertLayer(config) for _ in range(config.num_hidden_layers)])
        pooler = Parts(dense=nn.Linear(hidden, hidden))
        self.bert = Parts(embeddings=parts, encoder=Parts(layer=layers), pooler=pooler)
        predictions = Bias(config.vocab_size, transform=merged(config, hidden))
        self.cls = Parts(predictions=predictions, seq_relationship=nn.Linear(hidden, 2)) if heads else None
        if copies:
            decoder = nn.Linear(hidden, config.vocab_size)
            decoder.weight, decoder.bias = parts.word_embeddings.weight, predictions.bias
            predictions.add_module("decoder", decoder)
            parts.register_buffer("position_ids", flow.arange(config.max_position_embeddings).reshape(1, -1))
        self.classifier = None if outputs is None else nn.Linear(hidden, outputs)
        self.activation = activation(config.hidden_act)

    def outputs(self, batch) -> dict[str, np.ndarray]:
        ids, types, mask = inputs(batch)
        parts = self.bert.embeddings
        x = parts.word_embeddings(ids) + parts.token_type_embeddings(types)
        hidden = [parts.LayerNorm(x + parts.position_embeddings.weight[: ids.shape[1]])]
        for layer in self.bert.encoder.layer:
            hidden.append(layer(hidden[-1], mask))
        pooled = flow.tanh(self.bert.pooler.dense(hidden[-1][:, 0]))
        logits = None if self.classifier is None else self.classifier(pooled)
        if self.cls is None:
            return named(hidden, pooled, logits=logits)
        predictions = self.cls.predictions
        words = predictions.transform.LayerNorm(self.activation(predictions.transform.dense(hidden[-1])))
        words = flow.matmul(words, parts.word_embeddings.weight.transpose(0, 1)) + predictions.bias
        return named(hidden, pooled, mlm=words, nsp=self.cls.seq_relationship(pooled), logits=logits)


class DistilBertLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.attention = Parts(**{f"{name}_lin": nn.Linear(hidden, hidden) for name in ("q", "k", "v", "out")})
        self.sa_layer_norm, self.output_layer_norm = (nn.LayerNorm(hidden, eps=config.layer_norm_eps) for _ in range(2))
        self.ffn = Parts(lin1=nn.Linear(hidden, inner), lin2=nn.Linear(inner, hidden))
        self.heads, self.activation = config.num_attention_heads, activation(config.hidden_act)

    def forward(self, x, mask):
        maps = self.attention
        x = self.sa_layer_norm(maps.out_lin(attend(maps.q_lin(x), maps.k_lin(x), maps.v_lin(x), mask, self.heads)) + x)
        return self.output_layer_norm(self.ffn.lin2(self.activation(self.ffn.lin1(x))) + x)


class DistilBert(nn.Module):
    """With the head of pre-training (`heads`) and, with `outputs`, a classifier."""

    def __init__(self, config, outputs: int | None, heads: bool = True):
        super().__init__()
        hidden, self.words, self.classifies = config.hidden_size, heads, outputs is not None
        layers = nn.ModuleList([DistilBertLayer(config) for _ in range(config.num_hidden_layers)])
        self.distilbert = Parts(
            embeddings=embeddings(config, word=config.vocab_size, position=config.max_position_embeddings),
            transformer=Parts(layer=layers),
        )
        if self.words:
            self.vocab_transform = nn.Linear(hidden, hidden)
            self.vocab_layer_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
            self.vocab_projector = Bias(config.vocab_size)
        if self.classifies:
            self.pre_classifier, self.classifier = nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)
        self.activation = activation(config.hidden_act)

    def outputs(self, batch) -> dict[str, np.ndarray]:
        ids, _, mask = inputs(batch)
        parts = self.distilbert.embeddings
        hidden = [parts.LayerNorm(parts.word_embeddings(ids) + parts.position_embeddings.weight[: ids.shape[1]])]
        for layer in self.distilbert.transformer.layer:
            hidden.append(layer(hidden[-1], mask))
        words = logits = None
        if self.words:
            words = self.vocab_layer_norm(self.activation(self.vocab_transform(hidden[-1])))
            words = flow.matmul(words, parts.word_embeddings.weight.transpose(0, 1)) + self.vocab_projector.bias
        if self.classifies:
            logits = self.classifier(flow.relu(self.pre_classifier(hidden[-1][:, 0])))
        return named(hidden, mlm=words, logits=logits)


def legacy_shapes(config, outputs: int = 0) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each variable of a classifier or, without `outputs`, of pre-training."""
    hidden, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {
        "bert-embeddings-word_embeddings": (vocabulary, hidden),
        "bert-embeddings-token_type_embeddings": (config.type_vocab_size, hidden),
        "bert-embeddings-position_embeddings": (1, config.max_position_embeddings, hidden),
    }
    maps = {"bert-pooler-dense": (hidden, hidden)}
    norms = ["bert-embeddings"]
    for layer in range(config.num_hidden_layers):
        root = f"bert-encoder-layer_{layer}"
        maps |= {f"{root}-attention-self-{name}": (hidden, hidden) for name in ("query", "key", "value")}
        maps[f"{root}-attention-output-dense"] = (hidden, hidden)
        maps[f"{root}-intermediate-dense"], maps[f"{root}-output-dense"] = (hidden, inner), (inner, hidden)
        norms += [f"{root}-attention-output", f"{root}-output"]
    if not outputs:
        maps["cls-predictions-transform-dense"] = (hidden, hidden)
        norms.append("cls-predictions-transform")
        shapes |= {"cls-predictions-output_bias": (vocabulary,)}
    last = "classification" if outputs else "cls-seq_relationship"
    shapes |= {f"{last}-output_weights": (outputs or 2, hidden), f"{last}-output_bias": (outputs or 2,)}
    for name, shape in maps.items():
        shapes |= {f"{name}-weight": shape, f"{name}-bias": shape[1:]}
    for name in norms:
        shapes |= {f"{name}-LayerNorm-gamma": (hidden,), f"{name}-LayerNorm-beta": (hidden,)}
    return shapes


def raw_variables(folder: Path) -> dict[str, np.ndarray]:
    """What the programs of version 0.1 found: name -> the row of float32 in its file."""
    return {path.parent.name: np.fromfile(path, "<f4") for path in folder.glob("*/out")}


def legacy_outputs(variables: dict[str, np.ndarray], config, batch, prefix: str = "", outputs: int = 0) -> dict[str, np.ndarray]:
    """What a program of the time before modules computes of its variables: a classifier's or, without `outputs`, pre-training."""
    hidden_size, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    used = set()

    def variable(name: str, *shape: int):
        used.add(prefix + name)
        return flow.tensor(np.ascontiguousarray(variables[prefix + name].reshape(shape), np.float32))

    def dense(name: str, x, rows: int, columns: int):
        return flow.matmul(x, variable(f"{name}-weight", rows, columns)) + variable(f"{name}-bias", columns)

    def norm(name: str, x):
        x = x - x.mean(-1, keepdim=True)
        x = x / flow.sqrt((x * x).mean(-1, keepdim=True) + config.layer_norm_eps)
        return x * variable(f"{name}-LayerNorm-gamma", hidden_size) + variable(f"{name}-LayerNorm-beta", hidden_size)

    ids, types, mask = inputs(batch)
    act = activation(config.hidden_act)
    words = variable("bert-embeddings-word_embeddings", vocabulary, hidden_size)
    positions = variable("bert-embeddings-position_embeddings", 1, config.max_position_embeddings, hidden_size)
    types = variable("bert-embeddings-token_type_embeddings", config.type_vocab_size, hidden_size)[types]
    hidden = [norm("bert-embeddings", words[ids] + types + positions[:, : ids.shape[1]])]
    for layer in range(config.num_hidden_layers):
        root, x = f"bert-encoder-layer_{layer}", hidden[-1]
        maps = [dense(f"{root}-attention-self-{name}", x, hidden_size, hidden_size) for name in ("query", "key", "value")]
        attended = attend(*maps, mask, config.num_attention_heads)
        x = norm(f"{root}-attention-output", dense(f"{root}-attention-output-dense", attended, hidden_size, hidden_size) + x)
        wide = act(dense(f"{root}-intermediate-dense", x, hidden_size, inner))
        hidden.append(norm(f"{root}-output", dense(f"{root}-output-dense", wide, inner, hidden_size) + x))
    pooled = flow.tanh(dense("bert-pooler-dense", hidden[-1][:, 0], hidden_size, hidden_size))
    others = {}
    if not outputs:
        x = norm("cls-predictions-transform", act(dense("cls-predictions-transform-dense", hidden[-1], hidden_size, hidden_size)))
        others["mlm"] = flow.matmul(x, words.transpose(0, 1)) + variable("cls-predictions-output_bias", vocabulary)
    last = "classification" if outputs else "cls-seq_relationship"
    table = variable(f"{last}-output_weights", outputs or 2, hidden_size).transpose(0, 1)
    others["logits" if outputs else "nsp"] = flow.matmul(pooled, table) + variable(f"{last}-output_bias", outputs or 2)
    assert used == set(variables), "variables that the program does not have"
    return named(hidden, pooled, **others)
