"""`recipes/MIGRATION.md`: every flag of the replaced scripts has its row there, and every command of ours on it runs, in the
page's order, in a folder with tiny data and models under the paths that the page names."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from crossdistil.converters.convert import ConvertOptions, convert
from crossdistil.core.app import verify
from crossdistil.core.catalogue_folder import RECIPES_FOLDER
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.models.families.albert import AlbertConfig
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.models.families.electra import ElectraConfig
from crossdistil.core.recipe import load_recipe
from crossdistil.tests import tiny
from crossdistil.tests.conversion_sources import write_source
from crossdistil.tests.mlm_cases import CHINESE, write_corpus
from crossdistil.tests.tiny_causal import CONFIG as CAUSAL
from crossdistil.tests.tiny_causal import write_causal_lm
from crossdistil.tests.wrong_input_files import crossdistil

PAGE = RECIPES_FOLDER / "MIGRATION.md"
FLAGS = {
    "DistilBERT's scripts": """
        --alpha_ce --alpha_clm --alpha_cos --alpha_mlm --batch_size --data_file --dump_checkpoint --dump_file
        --dump_path --file_path --force --freeze_pos_embs --gradient_accumulation_steps --mlm --model_name --pytorch_model_path
        --student_config --student_pretrained_weights --student_type --teacher_name --teacher_type --tf_cache_dir
        --token_counts --token_counts_dump --tokenizer_name --tokenizer_type --vocab_size""",
    "MLM data and continued pre-training (TensorFlow)": """
        --bert_config_file --do_eval --do_train --do_whole_word_mask --dupe_factor --init_checkpoint
        --input_dir --input_file --learning_rate --masked_lm_prob --max_predictions_per_seq --max_seq_length --num_train_steps
        --num_warmup_steps --output_dir --output_file --pytorch_dump_path --random_seed --tf_checkpoint_path
        --train_batch_size --trusted-host --upgrade --vocab_file""",
    "TextBrewer's trainer and distiller": """
        --PRINT_EVERY --aux_data_dir --aux_task_name --bert_config_file_S --bert_config_file_T --ckpt_frequency
        --data_dir --do_lower_case --do_predict --do_train --fp16 --gradient_accumulation_steps --init_checkpoint_S
        --learning_rate --load_model_type --local_rank --matches --max_seq_length --model_architecture --no_inputs_mask
        --no_logits --num_train_epochs --only_load_embedding --output_att_score --output_att_sum --output_attention_layers
        --output_dir --output_encoded_layers --predict_batch_size --random_seed --s_opt1 --s_opt2 --s_opt3 --schedule
        --task_name --teacher_cached --temperature --train_batch_size --tuned_checkpoint_S --tuned_checkpoint_T
        --tuned_checkpoint_Ts --verbose_logging --vocab_file --warmup_proportion --weight_decay_rate""",
    "TinyBERT on MindSpore": """
        --bert_config_file --ckpt_file --data_dir --do_eval --do_lower_case --dupe_factor
        --enable_data_sink --epoch_size --init_checkpoint --input_file --learning_rate --masked_lm_prob
        --max_predictions_per_seq --max_seq_length --num_train_epochs --output_dir --output_file --privileged --random_seed
        --task_name --train_batch_size --vocab_file""",
    "OneFlow's examples": """
        --data_dir --find-links --tasks --user DATA_ROOT dataset MODEL_SAVE_DIR TEACHER_MODEL_DIR
        FT_BERT_BASE_DIR TMP_STUDENT_DIR STUDENT_DIR GPU_ID SAVE_TAG PHRASE1_LR PHRASE2_LR PHRASE1_REPLACE_RATE COMPRESS_RATIO
        PRETRAINED_MODEL BERT_BASE_DIR VERSION""",
}
"""Heading on the page -> flags, and arguments without dashes, of the scripts that it replaces."""

SIZES = {"hidden_size": 24, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 32}
POSITIONS = {"max_position_embeddings": 128}
SHORT = {"epochs": "null", "steps": 2, "batch_size": 4}
NARROW = {"hidden_size": 12, "intermediate_size": 16, "embedding_size": 8, "fully_connected_size": 8}
CASED = [*tiny.VOCABULARY, "The", "Film", "Scene"]


def sections() -> dict[str, str]:
    """Heading -> text of each section of the page."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def commands(text: str) -> list[list[str]]:
    """The arguments of every `crossdistil` line in the ```sh blocks, continued lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    assert all(words[0] == "crossdistil" for words in split if words)
    return [words[1:] for words in split if words]


def shortened(words: list[str]) -> list[str]:
    """A `run` with two steps a stage, four examples a step, and a narrow student where the recipe has its own widths."""
    values = {"--set": [], "--preset": []}
    for option, value in zip(words, words[1:]):
        values.get(option, []).append(value)
    recipe = load_recipe(words[1], values["--set"], *values["--preset"])
    more = []
    for index, stage in enumerate(recipe.stages):
        settings = SHORT | {"gradient_accumulation": min(2, stage.train.gradient_accumulation)}
        more += [f"stages.{index}.train.{key}={value}" for key, value in settings.items()]
    more += [f"student.architecture.{key}={NARROW[key]}" for key in recipe.student.architecture if key in NARROW]
    return [*words, "--backend", "torch", "--device", "cpu", *(part for each in more for part in ("--set", each))]


def model(folder: Path, config, vocabulary: list[str], outputs: int | None = None) -> Path:
    """A random model with its pre-training heads or a classifier, as transformers saves it."""
    write_source(folder, config.model_copy(update={"vocab_size": len(vocabulary)}), outputs, heads=outputs is None)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    return folder


def converted(source: Path, folder: Path, to: str, layout: str) -> Path:
    """The same in another framework's format."""
    convert(source, folder, ConvertOptions(to, layout))
    return folder


def write_pickles(folder: Path, texts: list[str], tokenizer_folder: Path) -> None:
    """What binarized_data.py and token_counts.py write."""
    tokenizer = load_tokenizer(tokenizer_folder)
    ids, lengths = tokenizer.encode_pieces(texts)
    first, last = tokenizer.ends
    rows = [np.array([first, *row, last], np.uint16) for row in np.split(ids, np.cumsum(lengths)[:-1])]
    counts = np.bincount(np.concatenate(rows), minlength=tokenizer.vocab_size).tolist()
    for name, content in {"binarized_text": rows, "token_counts": counts}.items():
        (folder / f"{name}.bert-base-chinese.pickle").write_bytes(pickle.dumps(content, pickle.HIGHEST_PROTOCOL))


def write_reviews(folder: Path, texts: list[str]) -> None:
    """Aspect-level reviews in three lines each: text with $T$, aspect, label."""
    folder.mkdir(parents=True)
    for split, rows in {"train": texts[:18], "dev": texts[18:27], "test": texts[27:33]}.items():
        lines = [f"{text[:4]}$T${text[4:]}\n{text[-2:]}\n{row % 3 - 1}\n" for row, text in enumerate(rows)]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")


def write_lists(folder: Path, texts: list[str], labels: tuple[str, ...]) -> None:
    """The same as lists of [text, aspect, label]."""
    folder.mkdir(parents=True)
    for split, rows in {"train": texts[:20], "dev": texts[20:]}.items():
        content = [[text, text[-2:], labels[row % len(labels)]] for row, text in enumerate(rows)]
        (folder / f"{split}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with everything that the page's commands read."""
    root = tmp_path_factory.mktemp("page")
    generator = np.random.default_rng(5)
    characters = [token for token in CHINESE if len(token) == 1 and "\u4e00" <= token <= "\u9fff"]
    texts = ["".join(generator.choice(characters, generator.integers(12, 40))) for _ in range(40)]
    (root / "prepare_data").mkdir()
    (root / "prepare_data/preTrain_summary_raw.txt").write_text("\n".join(texts), encoding="utf-8")

    bert = BertConfig(vocab_size=1, **SIZES, **POSITIONS)
    chinese = model(root / "bert-base-chinese", bert, CHINESE)
    write_pickles(root / "prepare_data", texts, chinese)
    converted(chinese, root / "chinese_L-12_H-768_A-12", "tf", "google")
    trained = converted(chinese, root / "chinese_wwm_L-12_H-768", "tf", "google")
    (trained / "bert_config.json").unlink()
    (trained / "config.json").unlink()

    converted(chinese, root / "mac_bert_model", "pytorch", "bin")
    narrow = {"embedding_size": 16, **SIZES, **POSITIONS}
    model(root / "electra_model", ElectraConfig(vocab_size=1, **narrow), CHINESE)
    model(root / "albert_model", AlbertConfig(vocab_size=1, **narrow), CHINESE)
    classifier = model(root / "sources/classifier", bert, CHINESE, outputs=3)
    for name in ("trained_teacher_model/gs3024", "other_teacher/gs4158"):
        folder = converted(classifier, (root / name).parent, "pytorch", "bin")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: config[key] for key in config if "label" not in key}))
        (folder / "pytorch_model.bin").rename((root / name).with_suffix(".pkl"))
    write_reviews(root / "data_root_dir/cosmetics", texts)
    write_lists(root / "data_root_dir/newcos", texts, ("消极", "中性", "积极"))
    write_lists(root / "data_root_dir/components", texts, ("是", "否"))

    english = model(root / "sources/english", bert, CASED)
    cased = converted(english, root / "cased_L-12_H-768_A-12", "tf", "google")
    (cased / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    wiki = root / "enwiki/extracted/AA/wiki_00"
    wiki.parent.mkdir(parents=True)
    documents = write_corpus(root / "sources/text", 12).read_text(encoding="utf-8").split("\n\n")
    wiki.write_text("".join(f'<doc id="{n}" url="" title="a">\n{text}\n</doc>\n' for n, text in enumerate(documents)))
    tiny.write_task(root / "SST-2")
    tiny.write_task(root / "data/glue_data/SST-2")
    uncased = model(root / "sources/uncased", bert, tiny.VOCABULARY)
    variables = converted(uncased, root / "models/uncased_L-12_H-768_A-12_oneflow", "oneflow", "legacy-raw")
    for variable in (variables / "weights").iterdir():
        variable.rename(variables / variable.name)  # as the scripts have them, without a folder around them
    (variables / "weights").rmdir()
    small = bert.model_copy(update={"num_hidden_layers": 4, "hidden_size": 12, "intermediate_size": 16})
    source = model(root / "sources/small", small, tiny.VOCABULARY)
    converted(source, root / "models/2nd_General_TinyBERT_4L_312D", "pytorch", "bin")
    write_corpus(root / "corpus.txt", 4)
    write_causal_lm(root / "models/gpt2", CAUSAL.model_copy(update={"n_layer": 12, "n_positions": 128}))
    shutil.rmtree(root / "sources")
    return root


@pytest.mark.parametrize("heading", FLAGS)
def test_every_flag_has_a_row(heading):
    rows = [line for line in sections()[heading].splitlines() if line.startswith("|")]
    explained = {flag for row in rows for flag in re.findall(r"`([^`]+)`", row.split("|")[1])}
    given = {word.split("=")[0].split()[0] for word in explained}
    missing = [flag for flag in FLAGS[heading].split() if flag not in given]
    assert not missing
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 and row.split("|")[2].strip() for row in rows)


def test_nothing_of_the_places_where_the_scripts_ran():
    text = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"/mnt/|hdfs|/home/|/data/models|https?://|\d+\.\d+\.\d+\.\d+", text)


@pytest.mark.only_backend("torch")
def test_every_command_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(verify, "python_with", lambda module: None)  # --verify in NumPy alone
    ran = 0
    for heading, text in sections().items():
        for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
            exec(compile(block, f"{PAGE.name}: {heading}", "exec"), {})
        for words in commands(text):
            answer = crossdistil(*(shortened(words) if words[0] == "run" else words))
            assert answer.code == 0, f"{heading}: {shlex.join(words)}\n{answer.stdout[-800:]}{answer.stderr}"
            ran += 1
    assert ran >= 30
