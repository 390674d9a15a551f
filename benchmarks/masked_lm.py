"""An encoder with a masked-language-model head for the benchmarks, trained with transformers for some minutes: what
`crossdistil data augment --method masked-lm` needs beside MiniLM, which has no such head, and a start for a Chinese teacher.

    python benchmarks/masked_lm.py --start models/encoder --texts corpus.txt data/SST-2/train.tsv --minutes 22 --out models/mlm
    python benchmarks/masked_lm.py --vocabulary vocab.txt --layers 6 --hidden 384 --texts ... --minutes 25 --out models/zh

A text file is one text a line; of a .tsv file every cell of at least ten characters is a text.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

BATCH, LENGTH, PEAK, WARMUP = 32, 64, 3e-4, 100
MASKED_SHARE = 0.15


def read_texts(paths: list[Path]) -> list[str]:
    """All texts, shuffled."""
    texts = []
    for path in paths:
        lines = path.read_text(encoding="utf-8").split("\n")
        if path.suffix == ".tsv":
            lines = [cell for line in lines[1:] for cell in line.split("\t")]
        texts += [line.strip() for line in lines if len(line.strip()) >= 10]
    random.shuffle(texts)
    return texts


def make_model(options: argparse.Namespace) -> tuple[BertForMaskedLM, BertTokenizerFast]:
    """A new head on the encoder of --start, or a new model with the vocabulary of --vocabulary."""
    if options.start is None:
        words = options.vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n")
        tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)}, do_lower_case=True)
        sizes = {"num_hidden_layers": options.layers, "hidden_size": options.hidden, "num_attention_heads": 12}
        config = BertConfig(vocab_size=len(words), intermediate_size=4 * options.hidden, **sizes)
        return BertForMaskedLM(config), tokenizer
    tokenizer = BertTokenizerFast.from_pretrained(options.start)
    model = BertForMaskedLM(BertConfig.from_pretrained(options.start))
    state = load_file(options.start / "model.safetensors")
    names = {name: name if name.startswith("bert.") else f"bert.{name}" for name in state}
    missing, _ = model.load_state_dict({names[name]: tensor for name, tensor in state.items()}, strict=False)
    wrong = [name for name in missing if not name.startswith("cls.")]
    if wrong:
        raise SystemExit(f"{options.start}: has no {wrong[0]}")
    model.tie_weights()
    return model, tokenizer


def masked(ids: torch.Tensor, special: torch.Tensor, tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids with 15 % of the tokens replaced as in BERT's pre-training, which ones)."""
    chosen = (torch.rand(ids.shape) < MASKED_SHARE) & ~special
    draw = torch.rand(ids.shape)
    ids = ids.masked_fill(chosen & (draw < 0.8), tokenizer.mask_token_id)
    other = chosen & (draw >= 0.9)
    ids[other] = torch.randint(len(tokenizer), (int(other.sum()),))
    return ids, chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, help="encoder folder to start from")
    parser.add_argument("--vocabulary", type=Path, help="vocab.txt of a new model")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if (options.start is None) == (options.vocabulary is None):
        parser.error("give either --start or --vocabulary")
    random.seed(0)
    torch.manual_seed(0)
    model, tokenizer = make_model(options)
    texts = read_texts(options.texts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.01, fused=True)
    started, step, place, mean = time.monotonic(), 0, 0, None
    while (share := (time.monotonic() - started) / (60 * options.minutes)) < 1:
        pool = texts[place : place + 50 * BATCH]
        place = (place + 50 * BATCH) % len(texts)
        pool.sort(key=len)
        batches = [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
        random.shuffle(batches)
        for batch in batches:
            made = tokenizer(
                batch, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt", return_special_tokens_mask=True
            )
            special = made.pop("special_tokens_mask").bool()
            ids, chosen = masked(made["input_ids"], special, tokenizer)
            for group in optimizer.param_groups:
                group["lr"] = PEAK * min(1.0, (step + 1) / WARMUP) * max(0.02, 1 - share)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = model.bert(input_ids=ids, attention_mask=made["attention_mask"]).last_hidden_state
                logits = model.cls(hidden[chosen])
            loss = torch.nn.functional.cross_entropy(logits.float(), made["input_ids"][chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            step += 1
            if step % 200 == 0:
                print(f"step {step}, loss {mean:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
