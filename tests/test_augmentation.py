"""Augmentation without a framework: small cases by hand, and the draws' statistics."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from crossdistil.core.augmentation.copies import Copy, new_copies
from crossdistil.core.augmentation.replaced_words import MaskedSettings, Place, published_copies, variants
from crossdistil.core.augmentation.tagging import EnglishTagger, LexiconTagger, split_words
from crossdistil.core.augmentation.vectors import WordVectors, load_vectors
from crossdistil.core.augmentation.word_copies import MASK, WordAugmentation, WordSettings
from crossdistil.core.errors import DataError


class KindTagger:
    """Nouns start with n, verbs with v, everything else has no tag."""

    name = "kinds"

    def tags(self, words):
        return [word[0] if word[0] in "nv" else None for word in words]


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


def test_each_word_is_drawn_as_often_as_it_stands_in_the_texts():
    subject = augmentation(["x na", "nb", "nb nc"], mask=0, replace=1, ngram=0)
    words = Counter(copy.split()[1] for copy in changed_texts(subject, "x na", 4000))
    assert words.total() == 4000
    for word, count in {"na": 1, "nb": 2, "nc": 1}.items():
        assert_rate(words[word], 4000, count / 4)


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
    copies = [Copy(0, "a b", "c"), Copy(0, "a", "bc"), Copy(0, "a", "bc"), Copy(0, "ab", "c")]
    assert list(new_copies(["a  b"], ["c"], copies)) == [copies[1], copies[3]]


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


# Draws from candidates


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


def test_published_numbers_of_copies():
    assert [published_copies(task) for task in ("sst-2", "mnli", "cola", "reviews")] == [20, 10, 30, 30]
