"""Keys as transformers' versions and training scripts wrote them into `config.json`, beside those that make a configuration."""

from __future__ import annotations

_GENERATION = {
    "do_sample": False, "length_penalty": 1.0, "num_beams": 1, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50,
}  # fmt: skip
_LABELS = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
_OLD = {"finetuning_task": None, "num_labels": 2, "output_attentions": False, "output_hidden_states": False, "torchscript": False}
_VERSION_2 = _GENERATION | _LABELS | {
    **{"_num_labels": 2, "architectures": None, "bad_words_ids": None, "decoder_start_token_id": None, "eos_token_ids": None},
    **{"bos_token_id": None, "eos_token_id": None, "is_decoder": False, "is_encoder_decoder": False, "max_length": 20},
    **{"min_length": 0, "no_repeat_ngram_size": 0, "num_return_sequences": 1, "output_past": True, "prefix": None},
    **{"early_stopping": False, "pruned_heads": {}, "task_specific_params": None, "use_bfloat16": False, "xla_device": None},
}
_VERSION_3 = _VERSION_2 | {
    **{"add_cross_attention": False, "chunk_size_feed_forward": 0, "gradient_checkpointing": False, "return_dict": False},
    **{
        "sep_token_id": None,
        "tie_encoder_decoder": False,
        "tie_word_embeddings": True,
        "tokenizer_class": None,
        "use_cache": True,
    },
}
_VERSION_4 = _VERSION_3 | {
    **{"_name_or_path": "bert-base-uncased", "begin_suppress_tokens": None, "cross_attention_hidden_size": None},
    **{"diversity_penalty": 0.0, "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": None},
    **{"forced_bos_token_id": None, "forced_eos_token_id": None, "num_beam_groups": 1, "output_scores": False},
    **{"position_embedding_type": "absolute", "problem_type": None, "remove_invalid_values": False, "return_dict": True},
    **{"return_dict_in_generate": False, "suppress_tokens": None, "tf_legacy_loss": False, "torch_dtype": "float32"},
    **{"transformers_version": "4.48.0", "typical_p": 1.0, "_attn_implementation_autoset": True},
}

DUMPS = {
    "pytorch-transformers 1": _OLD | {"finetuning_task": "sst-2", "pruned_heads": {}},
    "transformers 2": _VERSION_2,
    "transformers 3": _VERSION_3,
    "transformers 4": _VERSION_4,
    "TinyBERT": {"cell": {}, "emb_size": 32, "pre_trained": "", "structure": [], "training": ""} | _OLD,
    "a script's own": {"my_threshold": 0.5, "wandb": {"run": "x"}, "optimizer_name": "adam"},
}
"""Style -> its keys, none of which changes what a model computes."""
