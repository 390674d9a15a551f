"""Values as messages show them: short, on one line, and never walked further than they are shown."""

import pytest

from crossdistil.core.shown import LIMIT, plain, printable, shown

INSIDE_ITSELF = []
INSIDE_ITSELF.append(INSIDE_ITSELF)
DOUBLED = ["lol"]
for _ in range(100):
    DOUBLED = [DOUBLED, DOUBLED]
KEYED = {}
KEYED["k"] = KEYED


@pytest.mark.parametrize(
    "value", ["x", "it's", "", 1, -2.5, None, True, [1, "a", None], {"a": [1], 2: ()}, (1,), (), b"ab", float("inf")]
)
def test_small_values_are_as_python_writes_them(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value", [INSIDE_ITSELF, DOUBLED, KEYED, "x" * 10**7, list(range(10**6)), {"k" * 10**6: 1}, b"x" * 10**7]
)
def test_the_length_is_bounded(value):
    assert len(shown(value)) <= LIMIT + 10
    assert "..." in shown(value)


class Counting(list):
    """A list that counts what is taken from it."""

    taken = 0

    def __iter__(self):
        for item in super().__iter__():
            self.taken += 1
            yield item


def test_no_more_is_looked_at_than_is_shown():
    value = Counting([Counting(range(1000)) for _ in range(1000)])
    shown(value)
    assert value.taken + sum(inner.taken for inner in list.__iter__(value)) <= LIMIT


@pytest.mark.parametrize("letter", ["\x1b", "\n", "\r", "\u202e", "\u2028", "\ud800", "\x9b", "\u200b", "\0"])
def test_what_a_terminal_obeys_is_escaped(letter):
    for text in (shown(f"a{letter}b"), shown([letter]), shown({letter: 1}), plain(f"a{letter}b"), printable(f"a{letter}")):
        assert text.isprintable() and "\\" in text
        text.encode("utf-8")


def test_an_integer_of_many_digits_is_told_by_its_size():
    assert shown(10**5000) == "an integer of 16,610 bits"
    assert shown([2**63]) == f"[{2**63}]"


def test_other_objects_are_told_by_their_type():
    assert shown([object()]) == "[<object>]"


def test_kept_characters_stay():
    assert printable("a\n\x1b[2J", "\n") == "a\n\\x1b[2J"
