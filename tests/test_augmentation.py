"""Augmentation: small cases by hand, the draws' statistics, the language model against transformers, and the command."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core.augmentation.copies import Copy, new_copies
from crossdistil.core.augmentation.language_model import Gap, GapFiller, load_language_model
from crossdistil.core.augmentation.masked_lm import (
    CandidateFinder,
    MaskedSettings,
    Place,
    augment_by_masked_lm,
    published_copies,
    variants,
)
from crossdistil.core.augmentation.tagging import EnglishTagger, LexiconTagger, split_words
from crossdistil.core.augmentation.vectors import WordVectors, load_vectors
from crossdistil.core.augmentation.words import MASK, WordAugmentation, WordSettings
from crossdistil.core.checkpoint import CONFIG, WEIGHTS
from crossdistil.core.errors import CheckpointError, DataError
from crossdistil.core.models.masked_lm import DECODER, EMBEDDINGS, MASKED, head_shapes, make_masked_lm
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.wrong_input_files import contents, crossdistil

HEAD_CONFIG = tiny.STILL


class KindTagger:
    """Nouns start with n, verbs with v, everything else has no tag."""

    name = "kinds"

    def tags(self, words):
        return [word[0] if word[0] in "nv" else None for word in words]


def write_masked_lm(folder, seed=0):
    """A BertForMaskedLM folder with random weights, without a pooler, as transformers writes it."""
    tiny.write_vocabulary(folder)
    generator = np.random.default_rng(seed)
    body = tiny.random_parameters(HEAD_CONFIG, seed=seed)
    tensors = {name: tensor for name, tensor in body.items() if not name.startswith(("classifier.", "bert.pooler."))}
    for name, shape in head_shapes(HEAD_CONFIG).items():
        tensors[name] = generator.normal(1.0 if "LayerNorm.weight" in name else 0.0, 0.3, shape).astype(np.float32)
    (folder / CONFIG).write_text(json.dumps({"model_type": "bert", **HEAD_CONFIG.model_dump()}))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def masked_lm_folder(tmp_path_factory):
    return write_masked_lm(tmp_path_factory.mktemp("mlm") / "model")


@pytest.fixture(scope="module")
def model(masked_lm_folder):
    return load_language_model(masked_lm_folder)


@pytest.fixture(scope="module")
def filler(model, engine):
    return GapFiller(model, engine, batch_size=8)


# Words and tags


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it 's n't bad .", ["it", "'s", "n't", "bad", "."]),
        ("He didn't, did he?", ["He", "didn't", ",", "did", "he", "?"]),
        ("a 'good' 3.5 x-ray --", ["a", "'", "good", "'", "3.5", "x-ray", "--"]),
        ("很好 ok。", ["很", "好", "ok", "。"]),
        ("a [MASK] film", ["a", "[MASK]", "film"]),
        (" \n", []),
    ],
)
def test_words_of_a_text(text, words):
    found = split_words(text)
    assert list(found.words) == words
    assert found.joined(found.words) == " ".join(text.split())


def test_a_part_of_a_text_keeps_its_spacing():
    found = split_words("He came, saw: won!")
    assert found.joined(found.words, 1, 4) == "came, saw"
    assert found.joined(["x"] * 7) == "x xx xx xx"
    assert found.joined(found.words, 2, 2) == ""


def test_english_parts_of_speech():
    tags = EnglishTagger().tags("although laced with humor , it allows us to hope [MASK] 好".split())
    assert tags == ["IN", "VBN", "IN", "NN", ",", "PRP", "VBZ", "PRP", "TO", "VB", None, None]


def test_a_lexicon_gives_tags(tmp_path):
    path = tmp_path / "lexicon.tsv"
    path.write_text("Haus\tN\ngehen\tV\n", encoding="utf-8")
    assert LexiconTagger(path).tags(["Haus", "haus", "Gehen", "weit"]) == ["N", None, "V", None]
    path.write_text("Haus\tN\ngehen\t\n", encoding="utf-8")
    with pytest.raises(DataError, match="lexicon.tsv:2: expected word<TAB>tag, got an empty tag"):
        LexiconTagger(path)


# Masking, replacement, n-grams


def augmentation(texts, pairs=None, **settings):
    return WordAugmentation(texts, pairs, KindTagger(), WordSettings(**settings))


def assert_rate(hits: int, draws: int, rate: float):
    """Within four standard deviations of a binomial, so that a right rate fails once in 16,000 seeds."""
    assert abs(hits - draws * rate) <= 4 * np.sqrt(draws * rate * (1 - rate)), f"{hits} of {draws}, expected {rate}"


def changed_texts(subject: WordAugmentation, text: str, count: int, seed: int = 0) -> list[str | None]:
    generator = np.random.default_rng(seed)
    return [subject._changed(text, generator) for _ in range(count)]


def test_rates_of_masking_and_replacement():
    text = " ".join(f"n{index}" for index in range(200))
    # Other nouns, so that a replaced word can be told: one of them nine times as often as the other.
    corpus = [text, *["nrare"] * 1000, *["noften"] * 9000]
    found = changed_texts(augmentation(corpus, mask=0.15, replace=0.2, ngram=0), text, 100)
    words = [word for copy in found for word in copy.split()]
    assert len(words) == 100 * 200
    assert_rate(words.count(MASK), len(words), 0.15)
    rare, often = words.count("nrare"), words.count("noften")
    assert_rate(rare + often, len(words), 0.2 * 10_000 / 10_200)
    assert_rate(often, rare + often, 0.9)


def test_replacements_have_the_same_part_of_speech():
    text = "na va x nb vb"
    for copy in changed_texts(augmentation([text, "nc vc y"], mask=0, replace=1, ngram=0), text, 200):
        assert [word[0] for word in copy.split()] == ["n", "v", "x", "n", "v"]
        assert copy.split()[2] == "x"


def test_lengths_of_n_grams():
    words = [f"w{index}" for index in range(12)]
    subject = augmentation([" ".join(words)], mask=0, replace=0, ngram=0.4)
    found = [copy.split() for copy in changed_texts(subject, " ".join(words), 5000)]
    for copy in found:
        start = words.index(copy[0])
        assert copy == words[start : start + len(copy)]
    sizes = Counter(map(len, found))
    assert set(sizes) == {1, 2, 3, 4, 5, 12}
    assert_rate(sizes[12], 5000, 0.6)
    for size in range(1, 6):
        assert_rate(sizes[size], 5000, 0.4 / 5)
    starts = Counter(words.index(copy[0]) for copy in found if len(copy) == 5)
    for start in range(8):
        assert_rate(starts[start], sizes[5], 1 / 8)


def test_a_short_sentence_has_short_n_grams_and_all_its_copies():
    found = changed_texts(augmentation(["x y"], mask=0, replace=0, ngram=1), "x y", 1000)
    assert set(found) == {"x y", "x", "y"}
    assert_rate(found.count("x y"), 1000, 4 / 5)


def test_nothing_is_left_of_the_original():
    assert set(changed_texts(augmentation(["nx ny"], mask=1, replace=0), "nx ny", 50)) == {None}
    assert set(changed_texts(augmentation([" "]), " ", 5)) == {None}
    # One word in two is masked: an n-gram must have at least one that is not.
    found = changed_texts(augmentation(["x y"], mask=0.5, replace=0, ngram=1), "x y", 500)
    assert {"x", "y", None, "x [MASK]", "[MASK] y", "x y"} == set(found)


def test_of_a_pair_one_or_both_texts_change():
    first, second = " ".join(["na"] * 60), " ".join(["nb"] * 60)
    subject = augmentation([first], [second], copies=3000, ngram=0)
    kinds = Counter()
    for copy in subject._draws(5, lambda done, total: None):
        assert copy.row == 0
        kinds[copy.text != first, copy.pair != second] += 1
    # In 60 words something changes but once in 100,000 copies.
    for kind in ((True, False), (False, True), (True, True)):
        assert_rate(kinds[kind], 3000, 1 / 3)
    assert not kinds[False, False]


def test_no_copy_is_there_already():
    texts = ["na nb nc", "nb", "na na", "x [MASK]"]
    copies = list(augmentation(texts, copies=200).copies(1))
    found = [copy.text for copy in copies]
    assert len(found) == len(set(found)) > 20
    assert not set(found) & set(texts)
    assert {copy.row for copy in copies} <= {0, 2, 3}
    pairs = list(new_copies(["a  b"], ["c"], [Copy(0, "a b", "c"), Copy(0, "a", "b c"), Copy(0, "a", "b c"), Copy(0, "a b", "")]))
    assert pairs == [Copy(0, "a", "b c"), Copy(0, "a b", "")]


def test_a_seed_gives_the_same_copies():
    texts = [f"na n{index} x vb" for index in range(30)]
    first = list(augmentation(texts, copies=5).copies(1))
    assert first == list(augmentation(texts, copies=5).copies(1))
    assert first != list(augmentation(texts, copies=5).copies(2))
    seen = []
    list(augmentation(texts, copies=1).copies(1, lambda done, total: seen.append((done, total))))
    assert seen == [(row, 30) for row in range(1, 31)]


# Word vectors


VECTORS = """\
cat 1 0 0
dog 0.9 0.1 0
the 0 0 1
tiger 0.8 0.3 0
zero 0 0 0
"""


def test_nearest_words(tmp_path):
    path = tmp_path / "vectors.txt"
    for text in (VECTORS, "5 3\n" + VECTORS, VECTORS.replace("\n", " \r\n")):
        path.write_text(text, newline="")
        vectors = load_vectors(path)
        assert vectors.words == ["cat", "dog", "the", "tiger", "zero"]
        # cosines with cat: 0.9/sqrt(0.82) = 0.994, 0.8/sqrt(0.73) = 0.936, 0, 0
        assert vectors.nearest(["cat", "lion", "cat"], 2) == {"cat": ["dog", "tiger"]}
        assert vectors.nearest(["cat"], 9)["cat"][:2] == ["dog", "tiger"]
        assert len(vectors.nearest(["cat"], 9)["cat"]) == 4
    assert load_vectors(path, 2).words == ["cat", "dog"]


def test_nearest_words_agree_with_all_cosines():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(700, 8))
    words = [f"w{index}" for index in range(700)]
    found = WordVectors(words, table).nearest(words[:400], 7)
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    for row in range(400):
        assert found[words[row]] == [words[place] for place in np.argsort(-cosines[row])[:7]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 1 0\ndog 1\n", ":2: expected a word and 2 numbers"),
        ("cat 1 0\ndog 1 x\n", ":2: expected a word and 2 numbers"),
        ("cat 1 nan\n", ":1: expected a word and 2 numbers"),
        ("cat\n", ":1: expected a word and its numbers"),
        ("", ": holds no words"),
    ],
)
def test_damaged_vectors(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        load_vectors(path)
    assert str(error.value).startswith(f"{path}{message}")


# The language model


def masked_batch(seed=3, fill=1):
    batch = tiny.random_batch(fill=fill, seed=seed)
    rows, length = batch["input_ids"].shape
    positions = np.random.default_rng(seed).integers(0, batch["attention_mask"].sum(axis=1).astype(int))
    return batch | {MASKED: (np.arange(rows) * length + positions).astype(np.int32)}


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_the_head_is_the_reference_s(engine, model, activation):
    function = make_masked_lm(HEAD_CONFIG.model_copy(update={"hidden_act": activation}))
    batch = masked_batch()
    (expected,) = function(ReferenceOps(), model.parameters, batch)
    (found,) = engine.infer(function, model.parameters)(batch)
    assert found.shape == (5, HEAD_CONFIG.vocab_size)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_of_transformers_means_the_same_to_us(engine, tied, tmp_path):
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(1)
    keys = HEAD_CONFIG.model_dump(exclude={"classifier_dropout"})
    theirs = BertForMaskedLM(BertConfig(**keys, tie_word_embeddings=tied)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tiny.write_vocabulary(tmp_path / "model"))
    ours = load_language_model(tmp_path / "model")
    assert ours.tied == tied and (DECODER in ours.parameters) == (not tied)
    batch = masked_batch(fill=0)
    inputs = {name: torch.from_numpy(batch[name]).long() for name in ("input_ids", "token_type_ids", "attention_mask")}
    with torch.no_grad():
        expected = theirs(**inputs).logits.reshape(-1, HEAD_CONFIG.vocab_size)[batch[MASKED]].numpy()
    (found,) = engine.infer(make_masked_lm(ours.config, ours.tied), ours.parameters)(batch)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_a_tied_decoder_in_the_file_is_the_embeddings(tmp_path):
    folder = write_masked_lm(tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {DECODER: tensors[EMBEDDINGS].copy()}, folder / WEIGHTS)
    assert load_language_model(folder).tied


def test_folders_that_are_no_language_model(tmp_path, tiny_model):
    with pytest.raises(CheckpointError, match="has no cls.predictions.transform.dense.weight, so it is no masked"):
        load_language_model(tiny_model)
    folder = write_masked_lm(tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    for change, message in (
        ({"cls.predictions.bias": np.zeros(3, np.float32)}, r"cls.predictions.bias has shape \(3,\), expected"),
        ({"cls.predictions.bias": np.full(HEAD_CONFIG.vocab_size, np.nan, np.float32)}, "not finite"),
    ):
        save_file(tensors | change, folder / WEIGHTS)
        with pytest.raises(CheckpointError, match=message):
            load_language_model(folder)


def test_gaps_are_filled_by_the_most_probable_words(filler, model):
    """Many texts at once give what each gap gives alone, by the float64 reference."""
    texts = ["the film was good", "a", "the plot of it is so bad and dull but the actor was quite fine", "xyz was it"]
    encoded = [encoding.ids for encoding in model.tokenizer.library.encode_batch(texts, add_special_tokens=False)]
    gaps = [Gap(0, 1, 2), Gap(0, 3, 4), Gap(1, 0, 1), Gap(3, 0, 3), *(Gap(2, place, place + 1) for place in range(10))]
    found = filler.fill(encoded, gaps, 15)
    function = make_masked_lm(model.config)
    library = model.tokenizer.library
    cls, sep, mask = (library.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
    for gap, words in zip(gaps, found, strict=True):
        whole = encoded[gap.text][: filler.room]
        first = [cls, *whole[: gap.start], mask, *whole[gap.end :], sep]
        ids = np.array([[*first, *whole, sep]], np.int32)
        batch = {
            "input_ids": ids,
            "token_type_ids": (np.arange(ids.shape[1]) >= len(first))[None].astype(np.int32),
            "attention_mask": np.ones(ids.shape, np.float32),
            MASKED: np.array([1 + gap.start], np.int32),
        }
        (logits,) = function(ReferenceOps(), model.parameters, batch)
        tokens = [library.id_to_token(int(place)) for place in np.argsort(-logits[0])[:15]]
        assert words == [token for token in tokens if not token.startswith("##") and token not in tiny.SPECIAL]
    assert filler.fill(encoded, [], 15) == []


def test_which_words_have_candidates(filler, model):
    finder = CandidateFinder(model, filler, 15)
    text = "The film , it was xyz 4 and GREAT"
    places = finder.places([text])[text]
    # Neither stop words nor what is not alphabetic; "xyz" has three pieces and is masked by one [MASK].
    assert [text[place.start : place.end] for place in places] == ["film", "xyz", "GREAT"]
    for place in places:
        word = text[place.start : place.end]
        assert word.lower() not in [candidate.lower() for candidate in place.candidates]
        assert all(candidate[0].isupper() == word[0].isupper() or not candidate[0].isalpha() for candidate in place.candidates)
    vectors = WordVectors(["xyz", "Near", "far"], np.array([[1, 0], [1, 0.1], [0, 1]], np.float32))
    with_vectors = CandidateFinder(model, filler, 15, vectors).places([text, "xyzz"])
    assert with_vectors[text][0] == places[0] and with_vectors[text][2] == places[2]
    assert with_vectors[text][1].candidates == ("Near", "far")
    assert with_vectors["xyzz"] == []  # several pieces and no vector: left alone


def test_a_text_that_is_too_long_is_changed_where_it_fits(filler, model):
    text = " ".join(["film"] * 30)
    places = CandidateFinder(model, filler, 15).places([text])[text]
    assert len(places) == filler.room == (model.config.max_position_embeddings - 3) // 2


def test_rates_of_replacement():
    text = " ".join(["good"] * 50)
    places = [Place(5 * index, 5 * index + 4, ("a", "b", "c")) for index in range(50)]
    found = variants(text, places, MaskedSettings(copies=400), np.random.default_rng(0))
    assert len(found) == len(set(found)) == 400
    words = [word for copy in found for word in copy.split()]
    assert len(words) == 400 * 50
    assert_rate(len(words) - words.count("good"), len(words), 0.4)
    for candidate in "abc":
        assert_rate(words.count(candidate), len(words), 0.4 / 3)


def test_copies_keep_the_text_around_and_end_where_there_are_no_more():
    text = "A  film, good!"
    places = [Place(3, 7, ("Plot", "story")), Place(9, 13, ("bad",))]
    found = variants(text, places, MaskedSettings(copies=20), np.random.default_rng(0))
    assert sorted(found) == sorted(
        ["A  Plot, good!", "A  story, good!", "A  film, bad!", "A  Plot, bad!", "A  story, bad!"]
    )
    assert variants(text, [], MaskedSettings(), np.random.default_rng(0)) == []
    assert len(variants(text, places, MaskedSettings(copies=2), np.random.default_rng(0))) == 2


def test_of_a_pair_the_other_text_stays_the_original(filler, model):
    finder = CandidateFinder(model, filler, 15)
    texts, pairs = ["the film was good", "bad actor"], ["a dull plot", "the"]
    settings = MaskedSettings(copies=6)
    copies = list(augment_by_masked_lm(texts, pairs, finder, settings, seed=1))
    assert Counter((copy.row, copy.text != texts[copy.row], copy.pair != pairs[copy.row]) for copy in copies) == {
        (0, True, False): 6, (0, False, True): 6, (1, True, False): 6,
    }
    assert copies == list(augment_by_masked_lm(texts, pairs, finder, settings, seed=1))
    assert copies != list(augment_by_masked_lm(texts, pairs, finder, settings, seed=2))


def test_published_numbers_of_copies():
    assert [published_copies(task) for task in ("sst-2", "mnli", "cola", "reviews")] == [20, 10, 30, 30]


# The command


def read_lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def augment(data, out, *options, task="sst-2", method="words"):
    return crossdistil("data", "augment", "--task", task, "--data", data, "--out", out, "--method", method, *options)


def test_the_command_writes_a_task_folder(tiny_task, tmp_path):
    out = tmp_path / "new" / "task"
    answer = augment(tiny_task, out, "--copies", 3, "--seed", 5)
    assert answer.code == 0 and not answer.stderr, answer.stderr
    old, new = read_lines(tiny_task / "train.tsv"), read_lines(out / "train.tsv")
    assert new[: len(old)] == old and len(new) > len(old) + 40
    assert contents(out)["dev.tsv"] == contents(tiny_task)["dev.tsv"]
    assert sorted(contents(out)) == ["augmentation.json", "dev.tsv", "train.tsv"]
    note = json.loads((out / "augmentation.json").read_text())
    assert note["examples"] == {"original": len(old) - 1, "added": len(new) - len(old)}
    assert note["settings"] == {"copies": 3, "mask": 0.1, "replace": 0.1, "ngram": 0.25} and note["seed"] == 5
    assert note["sha256"] == {
        "source": contents(tiny_task)["train.tsv"], "train.tsv": contents(out)["train.tsv"],
    }
    assert augment(tiny_task, tmp_path / "again", "--copies", 3, "--seed", 5).code == 0
    assert contents(tmp_path / "again") == contents(out)


def test_labels_are_those_of_the_original(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(f"word{index} other{index} third{index}\t{index % 2}\n" for index in range(40))
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text("sentence\tlabel\n" + rows)
    assert augment(data, tmp_path / "out", "--copies", 4, "--replace-probability", 0, "--mask-probability", 0.3).code == 0
    added = read_lines(tmp_path / "out" / "train.tsv")[41:]
    assert len(added) > 40
    for line in added:
        text, label = line.split("\t")
        kept = next(word for word in text.split() if word != MASK)
        assert int(re.sub("[a-z]", "", kept)) % 2 == int(label)


def test_files_without_a_header_and_tables_of_every_kind(tmp_path, tiny_task):
    cola = tmp_path / "cola"
    cola.mkdir()
    for split in ("train", "dev"):
        (cola / f"{split}.tsv").write_text("gj04\t1\t\tThe boat sank slowly today.\ngj04\t0\t*\tBoat the sank.\n")
    assert augment(cola, tmp_path / "cola-new", task="cola").code == 0
    lines = read_lines(tmp_path / "cola-new" / "train.tsv")
    assert lines[:2] == ["\t1\t\tThe boat sank slowly today.", "\t0\t\tBoat the sank."] and len(lines) > 4
    assert all(line.count("\t") == 3 for line in lines)
    rows = [("the \"film\", it's good", "plot here", "yes"), ("a bad one", "the actor was fine", "no")]
    for kind in ("csv", "jsonl"):
        data = tmp_path / kind
        data.mkdir()
        for split in ("train", "dev"):
            if kind == "csv":
                cells = "".join('"' + '","'.join(cell.replace('"', '""') for cell in row) + '"\n' for row in rows)
                (data / f"{split}.csv").write_text("q,a,label\n" + cells)
            else:
                records = [json.dumps({"q": q, "a": a, "label": label}) for q, a, label in rows]
                (data / f"{split}.jsonl").write_text("\n".join(records) + "\n")
        options = ("--text", "q", "--text-pair", "a", "--label", "label")
        assert augment(data, tmp_path / f"{kind}-new", *options, task="reviews").code == 0
        note = json.loads((tmp_path / f"{kind}-new" / "augmentation.json").read_text())
        assert note["examples"]["added"] > 4 and note["settings"]["copies"] == 10
        # What was written is a table to augment in turn.
        again = augment(tmp_path / f"{kind}-new", tmp_path / f"{kind}-twice", *options, "--copies", 1, task="reviews")
        assert again.code == 0, again.stderr
        twice = json.loads((tmp_path / f"{kind}-twice" / "augmentation.json").read_text())
        assert twice["examples"]["original"] == sum(note["examples"].values())


def test_the_command_with_a_language_model(tiny_task, masked_lm_folder, tmp_path, backend_name, pytestconfig):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text(VECTORS)
    options = ["--model", masked_lm_folder, "--vectors", vectors, "--backend", backend_name]
    answer = augment(
        tiny_task, tmp_path / "out", *options, "--device", pytestconfig.getoption("--device"), "--copies", 2, method="masked-lm"
    )
    assert answer.code == 0 and not answer.stderr, answer.stderr
    note = json.loads((tmp_path / "out" / "augmentation.json").read_text())
    assert note["examples"]["added"] > 60
    assert note["settings"] == {"copies": 2, "replace": 0.4, "candidates": 15}
    assert note["vectors"] == {"file": "vectors.txt", "words": 5}
    assert note["backend"]["name"] == backend_name and note["backend"]["precision"] == "fp32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "masked-lm"], "--model: needed for --method masked-lm, the folder of a BertForMaskedLM"),
        (["--vectors", "v.txt"], "--vectors: only for --method masked-lm"),
        (["--precision", "bf16"], "--precision: only for --method masked-lm"),
        (["--method", "masked-lm", "--model", "m", "--pos-lexicon", "p"], "--pos-lexicon: only for --method words"),
        (
            ["--mask-probability", "0.7", "--replace-probability", "0.6"],
            "--mask-probability 0.7 and --replace-probability 0.6: together more than 1",
        ),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--task", "ss2"], "--text: needed, because 'ss2' is not a GLUE task; did you mean 'sst-2'?"),
        (["--task", "x", "--text", "sentence"], "--label: needed, because 'x' is not a GLUE task"),
        (["--text", "sentense"], "{data}/dev.tsv: no column 'sentense'; did you mean 'sentence'?"),
        (["--pos-lexicon", "nowhere.tsv"], "nowhere.tsv: no such file; the folder holds "),
        (["--method", "masked-lm", "--model", "nowhere"], "nowhere: no such model folder"),
        (
            ["--method", "masked-lm", "--model", "{model}", "--replace-probability", "0"],
            "--replace-probability 0: nothing would change with --method masked-lm",
        ),
        (["--method", "masked-lm", "--model", "{model}", "--vectors", "nowhere"], "nowhere: no such file"),
        (["--out", "{data}"], "--out {data}: is a folder that is not empty; name a new one"),
        (["--out", "{data}/dev.tsv"], "--out {data}/dev.tsv: is a file, expected a new folder"),
    ],
)
def test_what_is_wrong_is_one_line(options, message, tiny_task, masked_lm_folder, tmp_path):
    before = contents(tiny_task)

    def filled(text):
        return text.replace("{data}", str(tiny_task)).replace("{model}", str(masked_lm_folder))

    answer = augment(tiny_task, tmp_path / "out", *map(filled, options))
    assert answer.code == 2
    assert len(answer.messages) == 1 and answer.messages[0].startswith(filled(message)), answer.messages
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir()) and contents(tiny_task) == before


def test_a_model_without_the_head_is_refused(tiny_task, tiny_model, tmp_path):
    answer = augment(tiny_task, tmp_path / "out", "--model", tiny_model, method="masked-lm")
    assert answer.code == 2 and len(answer.messages) == 1
    assert "has no cls.predictions.transform.dense.weight" in answer.messages[0]
    assert not list(tmp_path.iterdir())
