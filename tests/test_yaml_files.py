"""The one reader of YAML: bounded, and one line with file, line and key for what cannot be read."""

import pytest

from crossdistil.core.errors import CrossdistilError, RecipeError
from crossdistil.core.recipe import parse_recipe, presets_of
from crossdistil.core.yaml_files import parse_yaml, read_yaml

LAUGHS = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))])
MERGED = "\n".join(["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12))])
REFUSED = {
    "laughs": (LAUGHS, r"a\.yaml:\d+: a\d+(\.\d)?: stands for more than 50,000 values"),
    "merged laughs": (MERGED, r"a\.yaml:\d+: a\d+[.<\d]*: stands for more than 50,000 values"),
    "inside of itself": ("a: &a [1, *a]", r"a\.yaml:1: a\.1: .*an alias stands inside of what it names"),
    "int": ("a: 1\nseed: !!int abc", r"a\.yaml:2: seed: got 'abc', which is no valid int"),
    "float": ("seed: !!float abc", r"a\.yaml:1: seed: got 'abc', which is no valid float"),
    "bool": ("b:\n  - seed: !!bool maybe", r"a\.yaml:2: b\.0\.seed: got 'maybe', which is no valid bool"),
    "month": ("a: 2001-99-99", r"a\.yaml:1: a: got '2001-99-99', which is no valid timestamp"),
    "binary": ("a: !!binary 'é'", r"a\.yaml:1: .*"),
    "digits": (f"a: {'9' * 5000}", r"a\.yaml:1: a: got 999.*, a value of 5,000 characters"),
    "hex": (f"a: 0x{'f' * 5000}", r"a\.yaml:1: a: got 0xfff.*, a value of 5,002 characters"),
    "deep": ("[" * 5000, r"a\.yaml.*nested more than 50 levels deep"),
    "deep blocks": ("- " * 5000 + "1", r"a\.yaml.*nested more than 50 levels deep"),
    "deep and whole": ("[" * 60 + "]" * 60, r"a\.yaml:1: .*nested more than 50 levels deep"),
    "half a character": ('a: "\\ud800"', r"a\.yaml:1: a: got '\\ud800', with a zero byte or half a character"),
    "zero byte": ('a: "\\0"', r"a\.yaml:1: a: got '\\x00'"),
    "object": ("a: !!python/object/apply:os.system ['true']", r"a\.yaml:1: not valid YAML"),
    "not UTF-8": (b"a: 1\nb: \xff", r"a\.yaml:2: not valid YAML: byte 8 is not UTF-8"),
    "control": (b"a: \x1b[2J", r"a\.yaml.*not valid YAML"),
    "key": ("? [1, {a: 2}]\n: 3", r"a\.yaml"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(tmp_path, name):
    content, message = REFUSED[name]
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(path)) + 300


def test_what_is_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &x {b: 5e-5, c: [1, 0x10, yes]}\nd: *x\ne:\n  <<: *x\n  b: 2\n")
    expected = {"b": 5e-5, "c": [1, 16, "yes"]}
    assert read_yaml(path) == {"a": expected, "d": expected, "e": {**expected, "b": 2}}
    assert parse_yaml("", "text") is None


PRESETS = [
    ("presets: 3", "presets: expected a mapping of names"),
    ("presets: [a]", "presets: expected a mapping of names"),
    ("presets: {p: null}", "presets.p: expected a mapping of path.to.key to value, got null"),
    ("presets: {p: {1: 2}}", "presets.p: .*got the key 1"),
    ("presets: {1: {a: 2}}", "presets: expected names of variants, got 1"),
]


@pytest.mark.parametrize(("text", "message"), PRESETS)
def test_presets_that_are_no_mapping(text, message):
    with pytest.raises(RecipeError, match=message):
        presets_of(parse_yaml(text, "r.yaml"), "r.yaml")


RECIPES = [
    ("method: ../../elsewhere", "method: got '../../elsewhere', expected the plain name"),
    ("method: kd\ntask: {name: a, data: ~nobody-of-this-name/x}", "task.data: ~nobody-of-this-name/x: there is no home folder"),
    ("stages: [{name: a, objective: [], train: {steps: 1, batch_size: 1000000000}}]",
     "batch_size: got 1000000000, expected at most 1,048,576"),
    ("task: {max_length: 100000000}", "task.max_length: should be less than or equal to 65536, got 100000000"),
    ("student: {architecture: [[[[[[[[[[1]]]]]]]]]]}", r"student.architecture: .*got \[\[\[\[\[\[\[\.\.\."),
]


@pytest.mark.parametrize(("text", "message"), RECIPES)
def test_values_of_recipes(text, message):
    with pytest.raises(CrossdistilError, match=message):
        parse_recipe(parse_yaml(text, "r.yaml"), "r.yaml")
