"""What comes after the layers of an encoder: the pooler, a head for classes, numbers, spans or vectors, and the one that predicts
words. Which parts a family has there is data (`core.models.parts`)."""

from __future__ import annotations

from .answer_heads import EMBEDDINGS as EMBEDDER
from .components import activate, dense, last_token, mean_of_tokens, normalise
from .heads import Head, word_embeddings, words_head
from .outputs import DECODER_BIAS, DECODER_WEIGHT, EMBEDDING, LOGITS, MASKED_WORDS, POOLED, WORDS, shows_layer
from .parts import CLASSIFIER, POOLER
from .parts import WORDS as OF_WORDS
from .pooling import make_pooling
from .spec import ACTIVATIONS, EncoderConfig
from .tree import has_bias, present

_OF_WORDS = frozenset({WORDS, MASKED_WORDS, DECODER_WEIGHT, DECODER_BIAS})


def make_head(config: EncoderConfig, wanted: frozenset[str], root: str):
    """`head(ops, params, x, batch) -> {name: tensor}`: `pooled` and `logits` where they are wanted."""
    if config.classifier.token_map:
        return _make_token_head(config, wanted, root)
    if config.classifier == EMBEDDER:
        return _make_embedding_head(config, wanted)
    classifier, hidden, dropout = _classifier(config, root), _make_hidden_map(config, root), config.head_dropout
    biased, causal, positions = has_bias(config, "classifier"), config.family.block.causal, config.positions
    pooler_dropout, drops_first, averages = config.before_pooler_dropout, config.family.pooler_dropout, config.averages_tokens
    wants_pooled, wants_logits, relu = POOLED in wanted, LOGITS in wanted, config.relu_before_classifier

    def head(ops, params, x, batch):
        ends = {}
        if wants_pooled or wants_logits:
            mask = batch["attention_mask"]
            if causal:
                text = last_token(ops, x, mask, positions)  # (B, H)
            else:
                text = mean_of_tokens(ops, x, mask) if averages else x[:, 0]
            pooled = hidden(ops, params, ops.dropout(text, pooler_dropout) if drops_first else text)
            if wants_pooled:
                ends[POOLED] = ops.float32(pooled)
            if wants_logits:
                inner = ops.relu(pooled) if relu else pooled
                ends[LOGITS] = ops.float32(dense(ops, params, classifier, ops.dropout(inner, dropout), biased))
        return ends

    return head


def wants_first_only(config: EncoderConfig, wanted: frozenset[str]) -> bool:
    """Whether the last layer computes the states of the first tokens alone, since the `wanted` outputs read no others: all that
    the other tokens are for then is keys and values. Of layers that are normalised before, with terms of distances, or several
    that count as one, all is computed."""
    block = config.family.block
    if block.normalised_before or config.distance_terms or len(config.layer_prefixes(config.num_hidden_layers - 1)) > 1:
        return False
    if config.classifier.token_map or block.causal or config.averages_tokens:
        return False
    if wanted & {WORDS, MASKED_WORDS} or shows_layer(wanted, config.num_hidden_layers):
        return False
    return config.classifier != EMBEDDER or config.pooling.mode == "cls"


def _classifier(config: EncoderConfig, root: str) -> str:
    return next(root + part.name for part in present(config, CLASSIFIER) if part.role == "classifier")


def _make_hidden_map(config: EncoderConfig, root: str):
    """`hidden(ops, params, x) -> x` of the same shape: what comes before the classifier's last map."""
    activation, epsilon = config.pooler_activation, config.layer_norm_eps
    parts = {part.role: part for part in present(config, POOLER)}
    if "pooler" not in parts:
        return _as_it_is
    kind, normalises, biased = ACTIVATIONS.get(activation), "pooler_norm" in parts, parts["pooler"].has_bias(config)
    pooler, norm = root + parts["pooler"].name, root + parts["pooler_norm"].name if normalises else ""
    norm_biased = normalises and parts["pooler_norm"].has_bias(config)

    def hidden(ops, params, x):
        x = dense(ops, params, pooler, x, biased)
        x = ops.tanh(x) if activation == "tanh" else activate(ops, x, kind)
        return normalise(ops, params, norm, x, epsilon, norm_biased) if normalises else x

    return hidden


def _make_token_head(config: EncoderConfig, wanted: frozenset[str], root: str):
    classifier, dropout, wants_logits = _classifier(config, root), config.token_head_dropout, LOGITS in wanted
    maps = bool(present(config, POOLER))
    hidden = _make_hidden_map(config, root) if maps else None

    def head(ops, params, x, batch):
        ends = {}
        if wants_logits:
            inner = hidden(ops, params, x) if maps else x
            ends[LOGITS] = ops.float32(dense(ops, params, classifier, ops.dropout(inner, dropout)))  # (B, L, C)
        return ends

    return head


def _make_embedding_head(config: EncoderConfig, wanted: frozenset[str]):
    if EMBEDDING not in wanted:
        return _nothing
    pool = make_pooling(config.pooling, config.positions)

    def head(ops, params, x, batch):
        return {EMBEDDING: pool(ops, x, batch["attention_mask"])}

    return head


def make_transform(config: EncoderConfig, head: Head, root: str = ""):
    """`f(ops, params, x) -> x`: what a head of pre-training does before its last map."""
    if not head.transform:
        return _as_it_is
    activation, epsilon = ACTIVATIONS[config.words_act if head.kind == OF_WORDS else config.hidden_act], config.layer_norm_eps
    transform, norm, normalises = root + head.transform, root + head.norm, bool(head.norm)
    biased = has_bias(config, f"{head.kind}.transform")
    norm_biased = normalises and has_bias(config, f"{head.kind}.norm")

    def apply(ops, params, x):
        x = activate(ops, dense(ops, params, transform, x, biased), activation)
        return normalise(ops, params, norm, x, epsilon, norm_biased) if normalises else x

    return apply


def make_words(config: EncoderConfig, wanted: frozenset[str], root: str):
    """`words(ops, params, x, batch) -> {name: tensor}`: what is wanted of the head that predicts words (BERT, section 3.1).
    Only the masked places go through it where no others are wanted."""
    wants_all, wants_masked = WORDS in wanted, MASKED_WORDS in wanted
    wants_weight, wants_bias = DECODER_WEIGHT in wanted, DECODER_BIAS in wanted
    if not wanted & _OF_WORDS:
        return _nothing
    head, width = words_head(config), config.hidden_size
    transform, weight = make_transform(config, head, root), root + word_embeddings(config)
    bias, biased, no_bias = root + head.last_bias, bool(head.last_bias), (config.vocab_size,)

    def transformed(ops, params, rows):
        return ops.float32(transform(ops, params, rows))  # (rows, E)

    def words(ops, params, x, batch):
        ends = {}
        rows = ops.reshape(x, (-1, width))  # (B L, H)
        if wants_all:
            ends[WORDS] = transformed(ops, params, rows)
            if wants_masked:
                ends[MASKED_WORDS] = ops.embedding(ends[WORDS], batch["masked_rows"])
        elif wants_masked:
            ends[MASKED_WORDS] = transformed(ops, params, ops.embedding(rows, batch["masked_rows"]))
        if wants_weight:
            ends[DECODER_WEIGHT] = params[weight]
        if wants_bias:
            ends[DECODER_BIAS] = params[bias] if biased else ops.static("zeros", no_bias)
        return ends

    return words


def _as_it_is(ops, params, x):
    return x


def _nothing(ops, params, x, batch):
    return {}
