"""The keys of a `config.json` beside those that make a configuration: the file is an open list, to which each version of
transformers and each training script adds its own.

What changes the computation in a way that our models do not have is a problem, and so is what looks like a misspelling of a
key that is missing. All else changes nothing here; what is not among the keys that every file has today is named to the user.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from ..shown import plain, shown
from .head_classes import class_name, is_causal
from .spec import EncoderConfig

USUAL_KEYS = frozenset(
    """architectures model_type id2label label2id num_labels problem_type torch_dtype dtype transformers_version use_cache
    _name_or_path gradient_checkpointing position_embedding_type bos_token_id eos_token_id sep_token_id is_decoder
    add_cross_attention is_encoder_decoder tie_word_embeddings chunk_size_feed_forward output_attentions
    output_hidden_states return_dict directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers
    pooler_size_per_head pooler_type crossdistil sentence_transformers sbert_ce_default_activation_function""".split()
)
"""What the dumps of today's transformers and the published BERTs have; that they change nothing need not be said."""

_OLDER_KEYS = frozenset(
    """output_past pruned_heads torchscript do_sample finetuning_task xla_device use_bfloat16 _num_labels cell emb_size
    pre_trained structure training embedding_size max_length min_length early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens decoder_start_token_id
    cross_attention_hidden_size tie_encoder_decoder tokenizer_class prefix task_specific_params tf_legacy_loss
    _attn_implementation_autoset _attn_implementation attn_implementation unk_token_id mask_token_id cls_token_id
    _commit_hash _flax_dtype language adapters model_max_length max_seq_length num_classes num_choices summary_type
    summary_use_proj summary_activation summary_last_dropout summary_proj_to_labels summary_first_dropout""".split()
)
"""What older versions, training scripts and others' code write: no misspellings of our keys."""

_OTHER_NAMES = {
    "num_attention_heads": ("n_heads", "n_head", "num_heads", "attention_heads", "encoder_attention_heads"),
    "num_hidden_layers": ("n_layers", "n_layer", "num_layers", "encoder_layers"),
    "hidden_act": ("activation", "activation_function", "hidden_activation", "activation_fn", "act_fn"),
    "layer_norm_eps": ("layer_norm_epsilon", "layernorm_epsilon", "layernorm_eps", "norm_eps", "ln_eps", "epsilon"),
}
"""BERT's name -> what other configurations call the same."""

_OFF = (None, False, 0, -1, "", "none", "None")
# Key -> (the values with which it changes nothing, what it means).
_COMPUTED_OTHERWISE: dict[str, tuple[tuple[Any, ...], str]] = {
    "is_decoder": (_OFF, "a decoder, whose tokens see only those before them; only encoders are computed here"),
    "add_cross_attention": (_OFF, "a decoder with cross-attention; only encoders are computed here"),
    "is_encoder_decoder": (_OFF, "an encoder with a decoder; only encoders are computed here"),
    "position_embedding_type": ((None, "absolute"), "not 'absolute', the only kind that is computed here"),
    "pruned_heads": (_OFF, "attention heads were cut out of single layers, which is not computed here"),
    "quantization_config": (_OFF, "quantized weights, which are not read here; save the model without quantization"),
    "compression_config": (_OFF, "compressed weights, which are not read here; save the model without compression"),
    "feed_forward_type": ((None, "original"), "another feed-forward part than BERT's"),
    "ln_type": ((None, "postln"), "layers that are normalised before, not after; only BERT's order is computed here"),
    "pre_norm": (_OFF, "layers that are normalised before, not after; only BERT's order is computed here"),
    "normalize_before": (_OFF, "layers that are normalised before, not after; only BERT's order is computed here"),
    "pre_layer_norm": (_OFF, "layers that are normalised before, not after; only BERT's order is computed here"),
    "scale_attn_weights": ((None, True), "attention scores that are not scaled"),
    "scale_attn_by_inverse_layer_idx": (_OFF, "attention scores that are scaled by layer"),
    "use_rms_norm": (_OFF, "another normalisation than BERT's"),
    "conv_kernel_size": (_OFF, "a convolution beside the first layer (DeBERTa-v2-xlarge), which is not computed here"),
    "embedding_norm": ((None, True), "embeddings without normalisation"),
    "attn_logit_softcapping": (_OFF, "attention scores that are capped"),
    "norm_type": ((None, "layer_norm", "layernorm", "LayerNorm"), "another normalisation than a layer's"),
    "layer_norm_type": ((None, "layer_norm", "layernorm", "LayerNorm"), "another normalisation than a layer's"),
}
_COMPUTED_OTHERWISE |= dict.fromkeys(
    ("is_causal", "causal", "use_causal_mask"), (_OFF, "tokens that see only those before them; only encoders are computed here")
)
_COMPUTED_OTHERWISE |= dict.fromkeys(
    ("norm_first", "prenorm", "use_prenorm", "layer_norm_before", "do_layer_norm_before"),
    (_OFF, "layers that are normalised before, not after; only BERT's order is computed here"),
)
_COMPUTED_OTHERWISE |= dict.fromkeys(
    ("sliding_window", "attention_window", "attention_window_size"),
    (_OFF, "layers that see only the tokens near by, which this family's are not here"),
)
_COMPUTED_OTHERWISE |= dict.fromkeys(
    ("scale_embedding", "scale_embeddings", "scale_emb"), (_OFF, "embeddings that are scaled, which is not computed here")
)
_OF_HEADS = frozenset("attention_head_size head_dim d_kv kv_channels".split())
_FEWER_HEADS = frozenset("num_key_value_heads num_kv_heads n_kv_heads".split())
"""Keys of sizes that follow from the width and the number of heads here."""
_POSITIONS = re.compile(r"relative|rotary|rope_|use_rope|alibi|rel_pos|disentangled", re.IGNORECASE)
_NEAR = 0.82
_SHOWN = 40
_LONGEST = 60
_OWN_CODE = "auto_map"


def config_problems(raw: Mapping[str, Any], chosen: type[EncoderConfig]) -> list[str]:
    """What a configuration asks for that our models do not compute, and keys that look like misspelt ones of the family's
    own, each as `key: why`."""
    own, known = chosen.model_fields, _known(chosen) | _OLDER_KEYS
    absent = [key for key in own if key not in raw and not any(raw_key in raw for raw_key in _names_of(key, chosen.aliases))]
    otherwise, problems = _COMPUTED_OTHERWISE | chosen.computed_otherwise, []
    if is_causal(raw) and not chosen.family.block.causal:
        problems.append(f"architectures is {plain(class_name(raw))}: a causal language model; only encoders are computed here")
    width, hidden = raw.get("embedding_size"), chosen.own_key("hidden_size")
    if width is not None and "embedding_size" not in own and width != raw.get(hidden, own[hidden].default):
        problems.append(f"embedding_size is {shown(width)}: a {chosen.family.model_type}'s embeddings are as wide as {hidden}")
    for key, value in raw.items():
        if key in otherwise:
            harmless, meaning = otherwise[key]
            if not _is_one_of(value, harmless):
                problems.append(f"{key} is {shown(value)}: {meaning}")
        elif (wrong := _other_heads(key, value, raw, chosen)) is not None:
            problems.append(f"{key} is {shown(value)}: {wrong}")
        elif key in chosen.aliases:
            same = chosen.aliases[key]
            if raw.get(same, value) != value:
                got, other = shown(value), shown(raw[same])
                problems.append(f"{key} is {got}, but {same}, which means the same, is {other}")
        elif key not in known:
            if _POSITIONS.search(key) and not _is_one_of(value, (*_OFF, "absolute")):
                problems.append(f"{key} is {shown(value)}: other positions than absolute ones, which are not computed here")
            elif (meant := _meant(key, value, absent, chosen)) is not None:
                problems.append(f"{_name(key)}: unknown key; did you mean '{meant}'?")
    return problems


def _other_heads(key: str, value: Any, raw: Mapping[str, Any], chosen: type[EncoderConfig]) -> str | None:
    """What is wrong with another size or number of heads than the family has here."""
    if type(value) is not int or value < 1 or key in chosen.model_fields or key not in _OF_HEADS | _FEWER_HEADS:
        return None
    own = [chosen.own_key(name) for name in ("hidden_size", "num_attention_heads")]
    current = chosen.current_keys(raw)
    sizes = [current.get(name, chosen.model_fields[name].default) for name in own if name in chosen.model_fields]
    if len(sizes) < 2 or any(type(size) is not int or size < 1 for size in sizes):
        return None
    width, heads = sizes
    if value == (heads if key in _FEWER_HEADS else width // heads):
        return None
    if key in _FEWER_HEADS:
        return f"keys and values of fewer heads than the {heads} of queries, which is not computed here"
    return f"heads of another size than {width // heads}, a part of the width each, which is not computed here"


def config_notes(raw: Mapping[str, Any], chosen: type[EncoderConfig], where: str) -> list[str]:
    """What the user should know of the keys that change nothing here, all of them in one line; `where` names the file."""
    notes, silent = [], _known(chosen) | {_OWN_CODE}
    if keys := [key for key in raw if key not in silent]:
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        notes.append(f"{where}: keys that change nothing here: {', '.join(map(_name, keys[:_SHOWN]))}{more}")
    if raw.get(_OWN_CODE):
        kind = chosen.family.model_type
        notes.append(f"{where}: {_OWN_CODE} names code of the model's own, which is not run: it is computed as a plain {kind}")
    return notes


def own_keys(raw: Mapping[str, Any], chosen: type[EncoderConfig]) -> dict[str, Any]:
    """The entries that make a configuration of the family, by its own keys."""
    return {key: value for key, value in chosen.current_keys(raw).items() if key in chosen.model_fields}


def _known(chosen: type[EncoderConfig]) -> frozenset[str]:
    own = (chosen.ignored_keys, chosen.computed_otherwise, chosen.model_fields, chosen.aliases)
    return USUAL_KEYS.union(*own)


def _names_of(key: str, aliases: Mapping[str, str]) -> list[str]:
    return [alias for alias, own in aliases.items() if own == key]


def _is_one_of(value: Any, harmless: tuple[Any, ...]) -> bool:
    if isinstance(value, dict):
        return None in harmless and all(_is_one_of(inner, harmless) for inner in value.values())
    return value in harmless or (None in harmless and value == [])


def _meant(key: str, value: Any, absent: list[str], chosen: type[EncoderConfig]) -> str | None:
    """The missing key that an unknown one probably is, if any."""
    if len(key) > _LONGEST:
        return None
    for common in (key, *(name for name, others in _OTHER_NAMES.items() if key in others)):
        own = chosen.own_key(common)
        if own != key and own in absent and value != chosen.model_fields[own].default:
            return own
    return next(iter(difflib.get_close_matches(key.lower(), absent, n=1, cutoff=_NEAR)), None)


def _name(key: str) -> str:
    return plain(key, _LONGEST)
