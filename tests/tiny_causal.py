"""The folder of a tiny causal language model with random weights and a byte-level tokenizer, as GPT-2's."""

from __future__ import annotations

from pathlib import Path

from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.kinds.known_kinds import NEXT_TEXT
from crossdistil.core.models.families.gpt2 import Gpt2Config
from crossdistil.tests import tiny, tiny_tokenizers

VOCABULARY = 420
KEYS = {"vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}
CONFIG = Gpt2Config(**KEYS, bos_token_id=0, eos_token_id=0)


def write_tokenizer(folder: Path) -> Path:
    """`tokenizer.json` alone, as the published GPT-2 has it: no file names a special token."""
    folder.mkdir(parents=True, exist_ok=True)
    library, _ = tiny_tokenizers.gpt2()
    library.save(str(folder / "tokenizer.json"))
    return folder


def write_causal_lm(folder: Path, config: Gpt2Config = CONFIG, seed: int = 0) -> Model:
    """A GPT2LMHeadModel."""
    tokenizer = load_tokenizer(write_tokenizer(folder.parent / f"{folder.name}-tokenizer"))
    parameters = {name: array for name, array in tiny.random_parameters(config, 1, seed).items() if name != "score.weight"}
    model = Model(config, parameters, None, None, kind=NEXT_TEXT, words=True)
    save_model(model, folder, tokenizer)
    return model
