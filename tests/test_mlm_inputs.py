"""Raw text for masked language model examples: its formats, told from content, packed or not; wrong files are named."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import re

import pytest

from crossdistil.core.data.mlm.documents import Corpus, detect_format, split_sentences
from crossdistil.core.data.mlm.inputs import TextFile, find_files
from crossdistil.core.data.mlm.vocabulary import Vocabulary
from crossdistil.core.errors import DataError
from crossdistil.tests.mlm_cases import ENGLISH, write_vocabulary

TWO = [["One is here.", "Two is there."], ["Three."]]
FORMATS = {
    "sentences": "\ufeffOne is here.\r\nTwo is there.\n\n\n  \nThree.\n",
    "lines": "One is here. Two is there.\nThree.",
    "wiki": '<doc id="1" url="x?a=1" title="A &quot;B&quot; > c">\nA "B" > c\n\nOne is here. Two is there.\n</doc>\n'
    '<doc id="2" title="T">\nT\n</doc>\n<doc id="3" title="U">\nU\n\nThree.\n</doc>\n',
    "json": '{"id": 1, "text": "One is here.\\nTwo is there."}\n\n{"text": "Three."}\n',
}


def documents(*files, format=None, **options):
    return [document for block in Corpus(files, format, **options).blocks() for document in block.documents]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pack", [None, gzip.compress, bz2.compress, lzma.compress])
def test_formats_are_told_by_their_content(tmp_path, format, pack):
    content = FORMATS[format].encode()
    (tmp_path / "text").write_bytes(pack(content) if pack else content)
    assert detect_format(tmp_path / "text") == format
    assert documents(tmp_path / "text") == TWO
    assert documents(tmp_path / "text", format=format) == TWO


def test_a_format_that_is_given_is_used(tmp_path):
    (tmp_path / "a").write_text("One.\nTwo.\n")
    assert documents(tmp_path / "a") == [["One."], ["Two."]]
    assert documents(tmp_path / "a", format="sentences") == [["One.", "Two."]]
    # Beside a file with blank lines, one without is a document.
    (tmp_path / "b").write_text("Three.\n\nFour.\n")
    assert documents(tmp_path / "a", tmp_path / "b") == [["One.", "Two."], ["Three."], ["Four."]]


def test_documents_may_go_on_in_the_next_file_as_in_google_s_script(tmp_path):
    for name, text in {"a": "One.\n\nTwo.\n", "b": "Three.\n\nFour.\n"}.items():
        (tmp_path / name).write_text(text)
    corpus = Corpus([tmp_path / "a", tmp_path / "b"])
    assert list(corpus.sentences(join_files=True)) == ["One.", None, "Two.", "Three.", None, "Four."]
    assert list(corpus.sentences()) == ["One.", None, "Two.", None, "Three.", None, "Four.", None]


@pytest.mark.parametrize(
    "text, sentences",
    {
        "A film. It was good! Was it?": ["A film.", "It was good!", "Was it?"],
        "By J. Smith at 3.14 p.m. of a day. The end": ["By J. Smith at 3.14 p.m. of a day.", "The end"],
        "他说：“好。”我走了！真的？": ["他说：“好。”", "我走了！", "真的？"],
        "等等……好": ["等等……", "好"],
    }.items(),
)
def test_sentences_of_a_line(text, sentences):
    assert list(split_sentences(text)) == sentences


def test_blocks_are_bounded_and_lose_nothing(tmp_path):
    lines = [f"sentence {number} of many" for number in range(2000)]
    (tmp_path / "a").write_text("\n".join(lines))
    corpus = Corpus([tmp_path / "a"], "sentences")
    blocks = list(corpus.blocks(4000))
    assert [line for block in blocks for document in block.documents for line in document] == lines
    sizes = [sum(len(line) for document in block.documents for line in document) for block in blocks]
    assert all(4000 <= size < 4600 for size in sizes[:-1]) and len(blocks) > 5
    assert all(len(block.documents) == 8 for block in blocks[:-1])  # one document, in eighths of a block
    assert sum(block.ended for block in blocks) == 1 and [block.number for block in blocks] == list(range(len(blocks)))
    assert corpus.position == corpus.size == blocks[-1].position


def test_files_by_name_folder_and_pattern(tmp_path):
    for name in ("b.txt", "a.txt", "below/c.gz", ".hidden/d.txt", "below/.e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_files([str(tmp_path / "b.txt"), str(tmp_path), str(tmp_path / "*.txt")])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["b.txt", "a.txt", "below/c.gz"]
    (tmp_path / "empty").mkdir()
    wrong = {"no.txt": "no such file or folder", "*.md": "no file has such a name", "empty": "holds no file"}
    for name, message in wrong.items():
        with pytest.raises(DataError, match=f"--data .*{message}"):
            find_files([str(tmp_path / name)])


WRONG = {
    "empty": (None, b"", "text: holds no text"),
    "blank": (None, b" \n\n\t\n", "text: holds no text"),
    "encoding": (None, b"good film\n\nok\xff\n", r"text:3: not UTF-8 \(byte 0xff\)"),
    "utf-16": (None, "good".encode("utf-16"), r"text:1: not UTF-8 \(byte 0xff\)"),
    "gzip cut off": (None, gzip.compress(b"good film\n" * 9000)[:-20], r"text:\d+: cannot be read"),
    "xz cut off": ("lines", lzma.compress(b"good film\n")[:-20], r"text:\d+: cannot be read"),
    "json": (None, b'{"text": "a"}\n{"text"\n', "text:2: is no JSON"),
    "key": (None, b'{"text": "a"}\n{"body": 1}\n', r"text:2: expected a text under the key 'text'; its keys are body"),
    "no object": ("json", b"[1]\n", "text:1: expected a text under the key 'text'; it is no object"),
    "no end": (None, b'<doc id="1" title="T">\na\n', "text:1: this <doc> has no </doc>"),
    "twice": (None, b'<doc id="1">\na\n<doc id="2">\n', "text:3: a <doc> within that of line 1"),
    "outside": (None, b'<doc id="1">\na\n</doc>\nb\n', "text:4: text outside of <doc"),
    "no begin": ("wiki", b"</doc>\n", "text:1: </doc> without <doc>"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named(tmp_path, case):
    format, content, message = WRONG[case]
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(DataError, match=message):
        documents(tmp_path / "text", format=format)


def test_another_key_of_json_lines(tmp_path):
    (tmp_path / "text").write_text(json.dumps({"body": "One."}))
    assert documents(tmp_path / "text", text_key="body") == [["One."]]


def test_a_line_may_have_other_line_ends_inside(tmp_path):
    (tmp_path / "text").write_text("a\u2028b\x0cc\nd", newline="", encoding="utf-8")
    assert list(TextFile(tmp_path / "text").lines()) == [(1, "a\u2028b\x0cc"), (2, "d")]


# ---------------------------------------------------------------------------------------------- vocabularies

def test_case_is_as_the_configuration_says(tmp_path):
    cased = [*ENGLISH, "Film", "A"]
    assert Vocabulary(write_vocabulary(tmp_path / "a")).lower_case
    assert not Vocabulary(write_vocabulary(tmp_path / "b", cased, do_lower_case=False)).lower_case
    assert not Vocabulary(tmp_path / "b").lower_case
    cased_file = write_vocabulary(tmp_path / "c", cased)
    with pytest.raises(DataError, match=r"vocab\.txt: is a cased one \(\d% of its pieces .* give --cased"):
        Vocabulary(cased_file)
    found = Vocabulary(cased_file, lower_case=False)
    assert found.tokenizer.library.encode("A Film", add_special_tokens=False).tokens == ["A", "Film"]
    assert found.case_warning() is None
    assert "no upper-case letter" in Vocabulary(tmp_path / "a", lower_case=False).case_warning()


def test_special_tokens_in_a_text_are_text(tmp_path):
    found = Vocabulary(write_vocabulary(tmp_path))
    ids = found.tokenizer.encode_pieces(["a [SEP] b [MASK]"])[0]
    assert not found.special[ids[ids != found.tokens.index("[UNK]")]].any()


def test_wrong_vocabularies(tmp_path):
    with pytest.raises(DataError, match=r"--vocabulary .*nowhere: no tokenizer\.json and no vocab\.txt"):
        Vocabulary(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no \[MASK\]"):
        Vocabulary(write_vocabulary(tmp_path / "a", [token for token in ENGLISH if token != "[MASK]"]))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="name the folder of this file"):
        Vocabulary(tmp_path / "tokenizer.json")


def test_sentences_end_where_the_rule_says():
    """The rule as places between two characters, which is slow."""
    rule = re.compile(
        r"(?<=[。！？…][”’」』])|(?<=[。！？…])(?![。！？…”’」』])|(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[\"“(A-Z0-9])"
    )
    draws = random.Random(0)
    for _ in range(20_000):
        text = "".join(draws.choice("。！？…”’」』.!? \t\u3000AB1“(\"a中\x85\x1c") for _ in range(draws.randint(0, 14)))
        assert list(split_sentences(text)) == [part for piece in rule.split(text) if (part := piece.strip())], text
