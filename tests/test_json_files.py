"""The one reader of JSON: what it takes, and one line for everything else."""

import json

import pytest

from crossdistil.core.errors import CheckpointError, CrossdistilError
from crossdistil.core.json_files import json_lines, parse_json, read_json, read_object

REFUSED = {
    "twice": ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
    "NaN": ('{"a": NaN}', "has NaN"),
    "infinity": ("[-Infinity]", "has -Infinity"),
    "too large": ("[1e999]", "the number 1e999, which is too large"),
    "deep": ("[" * 100_000, "nested more than 100 levels deep"),
    "deep and whole": ("[" * 200 + "]" * 200, "nested more than 100 levels deep"),
    "deep objects": ('{"a":' * 100_000, "nested more than 100 levels deep"),
    "digits": ("1" * 5000, "has an integer of 5,000 digits"),
    "cut off": ('{"a": ', "is no JSON, or damaged (Expecting value, column 7)"),
    "the line": ('{\n"a": 1,\n}', "line 3: is no JSON, or damaged"),
    "not UTF-8": (b'{"a":\n"\xff"}', "line 2: is no JSON, or damaged: byte 7 is not UTF-8"),
    "empty": ("", "is no JSON, or damaged"),
    "control": ('{"\\u001b[2J": 1, "\\u001b[2J": 2}', "'\\x1b[2J' is there twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(tmp_path, name):
    content, message = REFUSED[name]
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError) as caught:
        read_json(path, CheckpointError)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(path)) + 200


def test_what_is_read(tmp_path):
    value = {"a": [1, 2.5, -3, None, True, "ü"], "b": {"c": 10**30}}
    path = tmp_path / "a.json"
    for start in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(start + json.dumps(value).encode())
        assert read_object(path) == value
    assert parse_json("[" * 90 + "]" * 90, "text") and len(parse_json("[" + "[]," * 1000 + "[]]", "text")) == 1001


def test_a_file_above_its_limit_is_not_read(tmp_path):
    (tmp_path / "a.json").write_text("[" + " " * 5000 + "]")
    with pytest.raises(CrossdistilError, match="is longer than the 1,000 bytes"):
        read_json(tmp_path / "a.json", limit=1000)


def test_an_object_is_expected(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(CrossdistilError, match=r"a\.json: expected a JSON object, got \[1, 2\]"):
        read_object(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "b.json")


def test_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": NaN}\n\n  \r\n{"a": 2}\r\n{"a": \xff}\n')
    lines = json_lines(path, any_number=True)
    assert next(lines)[0] == 1
    assert next(lines) == (4, {"a": 2})
    with pytest.raises(CrossdistilError, match=r"a\.jsonl: line 5: .*not UTF-8"):
        next(lines)
