"""Cross-encoders and embedders of every family as transformers writes them, each with the tokenizer that its family has there."""

from __future__ import annotations

import json
from pathlib import Path

from crossdistil.tests import tiny, tiny_tokenizers
from crossdistil.tests.tiny_families import FAMILIES, OF_EACH, class_of, hugging_face_config, randomise

LENGTH = 24
"""Tokens of a pair; tiny models have at least 37 places."""


def _berts():
    from transformers import BertTokenizer

    return BertTokenizer(vocab={token: number for number, token in enumerate(tiny.VOCABULARY)})


def _mpnets():
    from transformers import MPNetTokenizerFast

    own = ["<s>", "<pad>", "</s>", "[UNK]"]  # and BERT's behind them, which are words to it
    tokens = [*own, *(token for token in tiny.VOCABULARY if token not in own), "<mask>"]
    return MPNetTokenizerFast(vocab={token: number for number, token in enumerate(tokens)})


def _robertas():
    from transformers import RobertaTokenizer

    model = json.loads(tiny_tokenizers.byte_level()[0].to_str())["model"]
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])


def _gpt2s():
    from transformers import GPT2Tokenizer

    model = json.loads(tiny_tokenizers.gpt2()[0].to_str())["model"]
    made = GPT2Tokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    made.pad_token = made.eos_token
    return made


def _xlm_robertas():
    from transformers import XLMRobertaTokenizer

    model = json.loads(tiny_tokenizers.unigram()[0].to_str())["model"]
    return XLMRobertaTokenizer(vocab=[tuple(entry) for entry in model["vocab"]])


def _fast(kind: str):
    def made():
        from transformers import PreTrainedTokenizerFast

        library, special = tiny_tokenizers.KINDS[kind]()
        named = {f"{role}_token": token for role, token in special.items()}
        names = ["input_ids", "token_type_ids", "attention_mask"]
        return PreTrainedTokenizerFast(tokenizer_object=library, model_input_names=names, **named)

    return made


_OTHERS = {
    "albert": _fast("albert"),
    "camembert": _xlm_robertas,
    "deberta-v2": _fast("albert"),
    "gpt2": _gpt2s,
    "modernbert": _fast("bpe"),
    "mpnet": _mpnets,
    "roberta": _robertas,
    "roberta-prelayernorm": _robertas,
    "xlm-roberta": _xlm_robertas,
}
"""Family -> what makes its tokenizer, where it is not BERT's."""


def tokenizer_of(kind: str):
    """transformers' tokenizer of a family."""
    return _OTHERS.get(kind, _berts)()


def write_reranker(folder: Path, kind: str, tokenizer=None, ending: str = "ForSequenceClassification", **keys) -> Path:
    """A folder as transformers writes it, with random weights: a cross-encoder, or a model of another class."""
    config, tokenizer = OF_EACH[kind], tokenizer_of(kind) if tokenizer is None else tokenizer
    tokenizer.model_max_length = LENGTH
    config = config.model_copy(update={"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **keys})
    scores = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    model = class_of(config, ending)(hugging_face_config(config, **({} if ending == "Model" else {"num_labels": 1, **scores})))
    randomise(model)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


KINDS = ("bert", *FAMILIES, "xlm-roberta")
