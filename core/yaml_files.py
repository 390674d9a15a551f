"""YAML that is not trusted: all reading of YAML goes through here.

Aliases are references, so a file of a kilobyte can stand for more values than a memory holds; what they stand for is counted
before anything is built. Values that cannot be read as what they are written as (`!!int abc`, a date in month 99), numbers
of any length, half characters and deep nesting are errors with file, line and key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from .errors import RecipeError
from .shown import plain, shown

MAX_BYTES = 1 << 22
MAX_VALUES = 50_000
"""With aliases written out; the largest recipe of the catalogue has some hundred."""
MAX_DEPTH = 50
_LONGEST_NUMBER = 100
_TEXT = "tag:yaml.org,2002:str"


def read_yaml(path: Path, name: str = "") -> Any:
    """The value in a file, which errors call `name` (its path unless given). Raises RecipeError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(name or str(path), [f"cannot be read: {error.strerror}"]) from error
    if len(data) > MAX_BYTES:
        raise RecipeError(name or str(path), [f"is longer than {MAX_BYTES:,} bytes, which is no recipe"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{name or path}:{line}", [f"not valid YAML: byte {error.start:,} is not UTF-8"]) from error
    return parse_yaml(text, name or str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value in a text; `where` names it in errors. Raises RecipeError."""
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Bounded
    try:
        return reader.load(text)
    except _Refused as error:
        key = f"{error.key}: " if error.key else ""
        raise RecipeError(f"{where}:{error.line}", [f"{key}{error}"]) from error
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise RecipeError(f"{where}{line}", [f"not valid YAML: {plain(str(error.problem))}"]) from error
    except RecursionError as error:
        raise RecipeError(where, [f"not valid YAML: it is nested more than {MAX_DEPTH} levels deep"]) from error
    except (YAMLError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:  # whatever the parser meets
        raise RecipeError(where, [f"not valid YAML: {plain(' '.join(str(error).split()))}"]) from error


class _Refused(Exception):
    def __init__(self, node: Node, key: str, what: str):
        super().__init__(what)
        self.line, self.key = node.start_mark.line + 1, key


class _Bounded(SafeConstructor):
    """Looks at the nodes before it makes values of them."""

    def get_single_data(self) -> Any:
        node = self.composer.get_single_node()
        if node is None:
            return None
        self._keys: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        self._look_at(node, "", 0, set())
        return self.construct_document(node)

    def _look_at(self, node: Node, key: str, depth: int, above: set[int]) -> int:
        """How many values a node stands for, with its aliases written out."""
        if id(node) in above:
            raise _Refused(node, key, "not valid YAML here: an alias stands inside of what it names")
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        if depth > MAX_DEPTH:
            raise _Refused(node, plain(key, 60), f"not valid YAML here: it is nested more than {MAX_DEPTH} levels deep")
        self._keys[id(node)] = key
        size = 1
        if isinstance(node, ScalarNode):
            self._look_at_scalar(node, key)
        else:
            above.add(id(node))
            for number, item in enumerate(node.value):
                name, value = item if isinstance(node, MappingNode) else (None, item)
                if name is not None:
                    size += self._look_at(name, key, depth + 1, above)
                part = plain(name.value, 60) if isinstance(name, ScalarNode) else str(number)
                size += self._look_at(value, f"{key}.{part}".lstrip("."), depth + 1, above)
                if size > MAX_VALUES:
                    raise _Refused(node, key, f"stands for more than {MAX_VALUES:,} values with its aliases written out")
            above.discard(id(node))
        self._sizes[id(node)] = size
        return size

    @staticmethod
    def _look_at_scalar(node: ScalarNode, key: str) -> None:
        if node.ctag != _TEXT and len(node.value) > _LONGEST_NUMBER:
            raise _Refused(node, key, f"got {plain(node.value, 40)}, a value of {len(node.value):,} characters")
        if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in node.value):
            raise _Refused(node, key, f"got {shown(node.value)}, with a zero byte or half a character in it")

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (YAMLError, _Refused, RecursionError):
            raise
        except Exception as error:  # int, float and date of Python say it in many ways
            if not isinstance(node, ScalarNode):
                raise
            kind = str(node.ctag or "").rpartition(":")[2] or "value"
            raise _Refused(node, self._keys.get(id(node), ""), f"got {shown(node.value)}, which is no valid {kind}") from error
