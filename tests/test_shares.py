"""Work that was shared out over machines: the same bytes as of one, and one clear error where a share is missing, damaged or of
another command."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from crossdistil.core.data.masked_texts import read_masked
from crossdistil.core.data.mlm.merge import OWN, merge_records
from crossdistil.core.data.shares import Part, complete_shares
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import DataError
from crossdistil.tests.mlm_cases import make, write_corpus, write_vocabulary

SETTINGS = {"dupe_factor": 1, "blocks_per_shard": 1}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """(vocabulary, text of five record files, what one machine made of it)."""
    folder = tmp_path_factory.mktemp("shares")
    vocabulary = write_vocabulary(folder / "vocabulary")
    text = write_corpus(folder / "text", 150)
    lines = text.read_text()
    text.write_text(lines * (4 * (1 << 20) // len(lines) + 1))
    make(folder / "whole", text, vocabulary, **SETTINGS)
    return vocabulary, text, folder / "whole"


@pytest.fixture(scope="module")
def three(material, tmp_path_factory):
    """Folders of the three shares."""
    folder = tmp_path_factory.mktemp("three")
    for index in range(3):
        make(folder / str(index + 1), material[1], material[0], part=Part(index, 3), **SETTINGS)
    return folder


@pytest.fixture
def copies(three, tmp_path):
    """The same, for a test that damages them."""
    return [shutil.copytree(three / str(number), tmp_path / str(number)) for number in (1, 2, 3)]


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def merge(folders, out):
    return merge_records(complete_shares(folders, OWN), out, lambda done, total: None)


def refused(folders, out, message):
    with pytest.raises(DataError, match=re.escape(message)) as found:
        merge(folders, out)
    assert "\n" not in str(found.value) and not out.exists()


def test_merged_shares_are_the_whole(cli_here, material, three, copies, tmp_path):
    told = cli_here("data", "merge", copies[2], copies[0], copies[1], "--out", tmp_path / "merged")
    assert content(tmp_path / "merged") == content(material[2])
    assert "3 shares, all there and whole" in told and "5 record files written to" in told
    assert content(copies[0]) == content(three / "1")  # which stay as they are
    for folder in copies[1:]:
        shutil.copytree(folder, copies[0], dirs_exist_ok=True)  # as machines that write to one folder
    merge(copies[:1], tmp_path / "other")
    merge([material[2]], tmp_path / "again")  # the only share of one
    assert content(tmp_path / "other") == content(tmp_path / "again") == content(material[2])
    told = cli_here("data", "merge", material[2], "--out", tmp_path / "merged", code=2)
    assert told == f"crossdistil: error: --out {tmp_path / 'merged'}: is a folder that is not empty; name a new one\n"


def test_other_disks_are_copied_from(material, copies, tmp_path, monkeypatch):
    def other_disk(*names):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", other_disk)
    merge(copies, tmp_path / "merged")
    assert content(tmp_path / "merged") == content(material[2])


def test_a_share_without_work_is_told(cli_here, material, tmp_path):
    run = ["data", "mlm", "--data", material[1], "--vocabulary", material[0], "--dupe-factor", 1, "--shard-mib", 1]
    told = cli_here(*run, "--processes", 1, "--out", tmp_path / "out", "--shard", "8/8")
    assert "nothing to do for share 8 of 8" in told and "--shard-mib" in told
    for index in range(7):
        make(tmp_path / "out", material[1], material[0], part=Part(index, 8), **SETTINGS)
    merge([tmp_path / "out"], tmp_path / "merged")
    assert content(tmp_path / "merged") == content(material[2])


def test_missing_and_doubled_shares(material, three, copies, tmp_path):
    one, two, last = copies
    out = tmp_path / "out"
    refused([one, last], out, f"share 2 of 3 is missing: looked for mlm-I-of-3.json in {one}, {last}")
    refused([last], out, "shares 1, 2 of 3 are missing")
    refused([one, two, last, three / "2"], out, f"share 2 of 3: is in {two} and in {three / '2'}; give one of them")
    refused([one, two, last, tmp_path / "nowhere"], out, f"{tmp_path / 'nowhere'}: no such folder")
    refused([one, two, last, material[2]], out, "mlm.json: is one of 1 shares, but")
    (last / "mlm-3-of-3.json").unlink()  # as where a machine has not finished
    refused(copies, out, f"{last}: has no finished share, expected mlm-I-of-N.json or tokens-I-of-N.json, which is written last")


def test_damaged_shares(copies, tmp_path):
    one, two, last = copies
    out = tmp_path / "out"
    where = f"{last}: share 3 of 3: "
    path, note, summary = last / "examples-00002.tfrecord", last / "examples-00002.json", last / "mlm-3-of-3.json"
    whole = {each: each.read_bytes() for each in (path, note, summary)}
    flipped = bytearray(whole[path])
    flipped[len(flipped) // 2] ^= 1
    shorter = json.dumps({**json.loads(whole[summary]), "shards": []})
    counted = json.loads(whole[summary])
    counted["counts"]["tokens"] += 1
    for damaged, content, message in (
        (path, flipped, f"{where}examples-00002.tfrecord is damaged: it has another checksum than its note says"),
        (path, whole[path][:-1], f"{where}examples-00002.tfrecord has {len(flipped) - 1:,} bytes, expected {len(flipped):,}"),
        (path, None, f"{where}examples-00002.tfrecord is missing; run its command again with --resume"),
        (note, None, f"{where}examples-00002.json is missing"),
        (note, whole[note].replace(b'"documents": ', b'"documents": 1'), f"{where}examples-00002.json is damaged"),
        (summary, shorter.encode(), f"{where}mlm-3-of-3.json does not name examples-00002.tfrecord, which belongs to it"),
        (summary, json.dumps(counted).encode(), f"{where}mlm-3-of-3.json does not fit the notes of its record files: tokens"),
        (summary, whole[summary][:-9], f"{summary}: line"),
        (summary, b"[]", f"{summary}: expected a JSON object"),
    ):
        damaged.unlink() if content is None else damaged.write_bytes(content)
        refused(copies, out, message)
        damaged.write_bytes(whole[damaged])


def test_shares_of_other_commands(material, copies, tmp_path):
    vocabulary, text, _ = material
    out, other = tmp_path / "out", tmp_path / "other"
    changed = tmp_path / "changed" / "text"
    changed.parent.mkdir()
    lines = text.read_bytes()
    changed.write_bytes(lines.replace(b"e", b"o", 1))  # in a record file of another share
    assert changed.stat().st_size == text.stat().st_size
    longer = tmp_path / "longer" / "text"
    longer.parent.mkdir()
    longer.write_bytes(lines + b"One more .\n")
    tokens = [*vocabulary.read_text().splitlines(), "more"]
    vocabularies = write_vocabulary(tmp_path / "more", tokens)
    for data, words, settings, message in (
        (text, vocabulary, {"seed": 3}, "settings.seed: got 3, expected 12345"),
        (text, vocabulary, {"dupe_factor": 2}, "settings.dupe_factor: got 2, expected 1"),
        (text, vocabularies, {}, "vocabulary.sha256: got "),
        (longer, vocabulary, {}, "input.bytes: got "),
        (changed, vocabulary, {}, "input.crc32c: got "),
    ):
        shutil.rmtree(other, ignore_errors=True)
        make(other, data, words, part=Part(1, 3), **{**SETTINGS, **settings})
        refused([copies[0], other, copies[2]], out, f"{other / 'mlm-2-of-3.json'}: {message}")
    note = json.loads((copies[1] / "mlm-2-of-3.json").read_text())
    note["libraries"]["tokenizers"] = "0.0.1"
    (copies[1] / "mlm-2-of-3.json").write_text(json.dumps(note))
    refused(copies, out, "libraries.tokenizers: got '0.0.1', expected")


def test_records_of_a_part_are_not_trained_on_as_the_whole(material, copies, tmp_path):
    tokenizer = load_tokenizer(material[0].parent)
    with pytest.raises(DataError, match=r"task\.data: .*: shares 1, 3 of 3 are missing; crossdistil data merge"):
        read_masked(copies[1], None, tokenizer, 128, 0, cache_folder=tmp_path / "cache")
    for folder in (copies[0], copies[2]):
        shutil.copytree(folder, copies[1], dirs_exist_ok=True)
    both = [read_masked(each, None, tokenizer, 128, 0, cache_folder=tmp_path / "cache") for each in (copies[1], material[2])]
    assert both[0].train.ids.tolist() == both[1].train.ids.tolist()
