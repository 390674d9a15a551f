"""Whether a model fits the vocabulary of a tokenizer."""

from __future__ import annotations

from .config_file import CONFIG
from .data.tokenize import Tokenizer
from .models.architectures import Config, is_encoder, takes_types
from .models.families.gpt2 import Gpt2Config

_PADDED_TO = 128
"""Tables of words are padded to multiples of 8, 64 or 128 rows."""


def vocabulary_problems(where: str, config: Config, tokenizer: Tokenizer) -> list[str]:
    """Whether there is a row in the model's table of words for each token. More rows are as good: many tables are padded."""
    rows, tokens = config.vocab_size, tokenizer.vocab_size
    if rows >= tokens:
        return []
    problem = f"{where}: vocab_size is {rows}, but the tokenizer has {tokens} tokens"
    if not is_encoder(config):
        return [problem]
    return [f"{problem}; `crossdistil convert MODEL NEW --to pytorch --resize-vocabulary {tokens}` adds rows"]


def types_problems(where: str, config: Config, tokenizer: Tokenizer) -> list[str]:
    """Whether a model of pairs has a row for the token type that a tokenizer gives the second text."""
    if not is_encoder(config) or config.type_vocab_size != 1 or not tokenizer.places.types:
        return []
    return [
        f"{where}: type_vocab_size is 1, but the tokenizer gives the second text of a pair token type 1; expected 2, or "
        f'{{"model_input_names": ["input_ids", "attention_mask"]}} in {tokenizer.source.with_name("tokenizer_config.json")}'
    ]


def vocabulary_notes(where: str, config: Config, tokenizer: Tokenizer, pairs: bool = False) -> list[str]:
    """What to know of a padding token that is not the tokenizer's, of the token types of `pairs`, where the model reads such, of
    those that a GPT-2 takes for words, and of a table of words that has far more rows than there are tokens: perhaps it
    is another tokenizer's."""
    rows, tokens = config.vocab_size, tokenizer.vocab_size
    notes = _padding_notes(where, config, tokenizer)
    if is_encoder(config) and config.type_vocab_size and getattr(tokenizer, "untyped", None):
        notes.append(f"{where}: the second text of a pair has token type 0 as the first: {tokenizer.untyped}")
    if pairs and takes_types(config) and (named := getattr(tokenizer, "other_types", "")):
        told = f"transformers 5 gives it none with {named}, unless model_input_names of tokenizer_config.json has token_type_ids"
        notes.append(f"{where}: the second text of a pair has token type 1; {told}")
    if isinstance(config, Gpt2Config) and getattr(tokenizer, "gives_types", False):
        wanted = '{"model_input_names": ["input_ids", "attention_mask"]} in tokenizer_config.json leaves them out there'
        notes.append(f"{where}: transformers gives it token types, looks them up as words, and answers otherwise; {wanted}")
    if rows - tokens < _PADDED_TO:
        return notes
    return [
        *notes,
        f"{where}: the table of words has {rows:,} rows, the tokenizer only {tokens:,} tokens; the other rows are never used. "
        "Is this the vocabulary that the model was trained with?",
    ]


def _padding_notes(where: str, config: Config, tokenizer: Tokenizer) -> list[str]:
    """What to know where the configuration names another padding token than the tokenizer. What is computed here masks padding by
    its place; others tell it by its number."""
    said, pads = getattr(config, "pad_token_id", None), tokenizer.pad_id
    if said is None or said == pads or not is_encoder(config):
        return []
    other = "no answer here depends on it"
    if config.first_position:
        other = "transformers counts positions by it, and answers otherwise"
    return [f"{where}: pad_token_id of {CONFIG} is {said}, but the tokenizer's padding token has number {pads}; {other}"]
