"""Google's BERT, ALBERT and ELECTRA as the graphs of TensorFlow 1 that they are: the referee for checkpoints with their names.

Names of variables come out of the scopes, as in google-research's `modeling.py`, `run_pretraining.py` and `run_classifier.py`:
a scope with a default name (`dense`, `LayerNorm`) is numbered from its second use on. Nothing here knows the converters.
Activations are called as in Hugging Face's configurations, so that both sides compute the same; Google's own "gelu" is
the tanh approximation, here `gelu_new`. A graph starts with random variables that all matter.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1.0 + tf.math.erf(x / math.sqrt(2.0))),
    "gelu_new": lambda x: 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
}

Outputs = dict[str, tf.Tensor]
Build = Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Outputs]


def build_bert(
    config, inputs, heads=("mlm", "nsp"), labels: int | None = None, tokens: int | None = None, spans: bool = False
) -> Outputs:
    """hidden/0 (embeddings) to hidden/N, pooled, and what is asked for: `mlm`, `nsp`, `logits` of a classifier of whole texts
    (run_classifier) or of `tokens` (BERT-NER), `start` and `end` of an answer (run_squad)."""
    with tf.variable_scope("bert"):
        with tf.variable_scope("embeddings"):
            x, table = _embeddings(config, inputs, config["hidden_size"])
        outputs = {"hidden/0": x}
        with tf.variable_scope("encoder"):
            for number in range(config["num_hidden_layers"]):
                with tf.variable_scope(f"layer_{number}"):
                    x = _bert_layer(config, inputs, x)
                outputs[f"hidden/{number + 1}"] = x
        with tf.variable_scope("pooler"):
            outputs["pooled"] = _dense(x[:, 0], config["hidden_size"], "tanh")
    if "mlm" in heads:
        with tf.variable_scope("cls/predictions"):
            outputs["mlm"] = _words(config, x, table, transform=True)
    if "nsp" in heads:
        outputs["nsp"] = _pair(outputs["pooled"])
    return outputs | _task(x, outputs["pooled"], labels, tokens, spans)


def build_albert(config, inputs, heads=("mlm", "sop"), labels: int | None = None, tokens: int | None = None) -> Outputs:
    """As `build_bert`, with `sop` in place of `nsp`; hidden/0 is after the map to the hidden width, and each of the layers
    that make up a group counts."""
    with tf.variable_scope("bert"):
        with tf.variable_scope("embeddings"):
            x, table = _embeddings(config, inputs, config["embedding_size"])
        with tf.variable_scope("encoder"):
            if config["embedding_size"] != config["hidden_size"]:
                x = _dense(x, config["hidden_size"], name="embedding_hidden_mapping_in")
            outputs = {"hidden/0": x}
            layers, groups = config["num_hidden_layers"], config["num_hidden_groups"]
            with tf.variable_scope("transformer", reuse=tf.AUTO_REUSE):
                for number in range(layers):
                    with tf.variable_scope(f"group_{int(number / layers * groups)}"):
                        for inner in range(config["inner_group_num"]):
                            with tf.variable_scope(f"inner_group_{inner}"):
                                x = _albert_layer(config, inputs, x)
                                outputs[f"hidden/{len(outputs)}"] = x
        with tf.variable_scope("pooler"):
            outputs["pooled"] = _dense(x[:, 0], config["hidden_size"], "tanh")
    if "mlm" in heads:
        with tf.variable_scope("cls/predictions"):
            outputs["mlm"] = _words(config, x, table, transform=True)
    if "sop" in heads:
        outputs["sop"] = _pair(outputs["pooled"])
    return outputs | _task(x, outputs["pooled"], labels, tokens)


def build_electra(config, inputs, heads=("discriminator",), scope: str = "electra") -> Outputs:
    """hidden/0 (after the map to the hidden width) to hidden/N, and `discriminator` or `generator`. Another `scope` is that
    of the generator in pre-training, which has the discriminator's embeddings."""
    with tf.variable_scope("electra", reuse=tf.AUTO_REUSE), tf.variable_scope("embeddings"):
        x, table = _embeddings(config, inputs, config["embedding_size"])
    with tf.variable_scope(scope):
        if config["embedding_size"] != config["hidden_size"]:
            x = _dense(x, config["hidden_size"], name="embeddings_project")
        outputs = {"hidden/0": x}
        with tf.variable_scope("encoder"):
            for number in range(config["num_hidden_layers"]):
                with tf.variable_scope(f"layer_{number}"):
                    x = _bert_layer(config, inputs, x)
                outputs[f"hidden/{number + 1}"] = x
    if "generator" in heads:
        with tf.variable_scope("generator_predictions"):
            # Hugging Face's generator has this activation whatever its configuration says.
            outputs["generator"] = _words({**config, "hidden_act": "gelu"}, x, table, transform=False)
    if "discriminator" in heads:
        with tf.variable_scope("discriminator_predictions"):
            inner = _dense(x, config["hidden_size"], config["hidden_act"])
            outputs["discriminator"] = _dense(inner, 1)[:, :, 0]
    return outputs


def _task(x: tf.Tensor, pooled: tf.Tensor, labels: int | None, tokens: int | None, spans: bool = False) -> Outputs:
    if labels is not None:
        return {"logits": _weights_and_bias(pooled, labels)}
    if tokens is not None:
        return {"logits": _of_each(x, tokens)}
    if spans:
        with tf.variable_scope("cls/squad"):
            start, end = tf.unstack(_of_each(x, 2), axis=-1)
        return {"start": start, "end": end}
    return {}


def _of_each(x: tf.Tensor, outputs: int) -> tf.Tensor:
    rows, length, width = x.shape
    return tf.reshape(_weights_and_bias(tf.reshape(x, [-1, width]), outputs), [rows, length, outputs])


def _embeddings(config, inputs, width: int) -> tuple[tf.Tensor, tf.Variable]:
    """(sum of the three embeddings, normalised; the table of words)."""
    words = _variable("word_embeddings", [config["vocab_size"], width])
    types = _variable("token_type_embeddings", [config["type_vocab_size"], width])
    positions = _variable("position_embeddings", [config["max_position_embeddings"], width])
    x = tf.gather(words, inputs["input_ids"]) + tf.gather(types, inputs["token_type_ids"])
    return _layer_norm(x + positions[: inputs["input_ids"].shape[1]]), words


def _bert_layer(config, inputs, x: tf.Tensor) -> tf.Tensor:
    hidden = config["hidden_size"]
    with tf.variable_scope("attention"):
        with tf.variable_scope("self"):
            context = _attention(config, inputs, x)
        with tf.variable_scope("output"):
            attended = _layer_norm(_dense(context, hidden) + x)
    with tf.variable_scope("intermediate"):
        inner = _dense(attended, config["intermediate_size"], config["hidden_act"])
    with tf.variable_scope("output"):
        return _layer_norm(_dense(inner, hidden) + attended)


def _albert_layer(config, inputs, x: tf.Tensor) -> tf.Tensor:
    hidden = config["hidden_size"]
    with tf.variable_scope("attention_1"):
        with tf.variable_scope("self"):
            context = _attention(config, inputs, x)
        with tf.variable_scope("output"):
            attended = _dense(context, hidden, name="dense")
    attended = _layer_norm(attended + x)
    with tf.variable_scope("ffn_1"), tf.variable_scope("intermediate"):
        inner = _dense(attended, config["intermediate_size"], config["hidden_act"], "dense")
        with tf.variable_scope("output"):
            outer = _dense(inner, hidden, name="dense")
    return _layer_norm(outer + attended)


def _attention(config, inputs, x: tf.Tensor) -> tf.Tensor:
    rows, length = inputs["input_ids"].shape
    heads, hidden = config["num_attention_heads"], config["hidden_size"]

    def split(name: str) -> tf.Tensor:
        return tf.transpose(tf.reshape(_dense(x, hidden, name=name), [rows, length, heads, hidden // heads]), [0, 2, 1, 3])

    query, key, value = split("query"), split("key"), split("value")
    scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(hidden // heads)
    scores += (1.0 - inputs["attention_mask"][:, None, None, :]) * -10000.0
    return tf.reshape(tf.transpose(tf.matmul(tf.nn.softmax(scores), value), [0, 2, 1, 3]), [rows, length, hidden])


def _words(config, x: tf.Tensor, table: tf.Variable, transform: bool) -> tf.Tensor:
    """The masked language model: a map to the embeddings' width, then their table."""
    if transform:
        with tf.variable_scope("transform"):
            x = _layer_norm(_dense(x, int(table.shape[1]), config["hidden_act"]))
    else:
        x = _layer_norm(_dense(x, int(table.shape[1]), config["hidden_act"]))
    return tf.matmul(x, table, transpose_b=True) + _variable("output_bias", [config["vocab_size"]])


def _pair(pooled: tf.Tensor) -> tf.Tensor:
    with tf.variable_scope("cls/seq_relationship"):
        return _weights_and_bias(pooled, 2)


def _weights_and_bias(x: tf.Tensor, outputs: int) -> tf.Tensor:
    weights = _variable("output_weights", [outputs, int(x.shape[-1])])
    return tf.matmul(x, weights, transpose_b=True) + _variable("output_bias", [outputs])


def _dense(x: tf.Tensor, size: int, activation: str | None = None, name: str | None = None) -> tf.Tensor:
    with tf.variable_scope(name, default_name="dense"):
        x = tf.matmul(x, _variable("kernel", [int(x.shape[-1]), size])) + _variable("bias", [size])
    return x if activation is None else ACTIVATIONS[activation](x)


def _layer_norm(x: tf.Tensor) -> tf.Tensor:
    with tf.variable_scope(None, default_name="LayerNorm"):
        size = [int(x.shape[-1])]
        beta, gamma = _variable("beta", size), _variable("gamma", size)
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-12) * gamma + beta


def _variable(name: str, shape: list[int]) -> tf.Variable:
    center = 1.0 if name == "gamma" else 0.0
    return tf.get_variable(name, shape, tf.float32, tf.random_normal_initializer(center, 0.2))


def add_training_state() -> None:
    """The variables that training adds: those of `optimization.py` for each weight, and the step."""
    for variable in tf.trainable_variables():
        for slot in ("adam_m", "adam_v"):
            tf.get_variable(f"{variable.op.name}/{slot}", variable.shape, tf.float32, tf.ones_initializer(), trainable=False)
    tf.train.get_or_create_global_step()


def save(
    build: Build, config, inputs, prefix: Path, training: bool = False, shards: int = 1
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Save the graph with random variables; (its trained variables by their names, outputs)."""
    with tf.Graph().as_default():
        tf.set_random_seed(5)
        # A saver writes one file for each device that holds variables.
        with tf.device(lambda operation: f"/cpu:{zlib.crc32(operation.name.encode()) % shards}"):
            outputs = build(config, inputs)
            weights = {variable.op.name: variable for variable in tf.trainable_variables()}
            if training:
                add_training_state()
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": shards})) as session:
            session.run(tf.global_variables_initializer())
            tf.train.Saver(sharded=shards > 1).save(session, str(prefix), write_state=False)
            return session.run([weights, outputs])


def restore(build: Build, config, inputs, prefix: Path) -> tuple[set[str], set[str], dict[str, np.ndarray]]:
    """(names of the variables that the checkpoint initialises, names of those that are drawn at random, outputs), as
    `modeling.py` does it: `init_from_checkpoint` with the names that graph and checkpoint have in common."""
    with tf.Graph().as_default():
        outputs = build(config, inputs)
        names = {variable.op.name: variable for variable in tf.global_variables()}
        there = {name for name, _ in tf.train.list_variables(str(prefix))}
        tf.train.init_from_checkpoint(str(prefix), {name: variable for name, variable in names.items() if name in there})
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            return set(names) & there, set(names) - there, session.run(outputs)


def write(arrays: Mapping[str, np.ndarray], prefix: Path) -> None:
    """Save variables of any names and values."""
    with tf.Graph().as_default(), tf.Session() as session:
        for name, array in arrays.items():
            tf.get_variable(name, initializer=array)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(prefix), write_state=False)


def read(prefix: Path) -> dict[str, np.ndarray]:
    """All variables of a checkpoint."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
