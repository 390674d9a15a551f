"""Pickles of files that are not trusted, read without `pickle`, whose format is a program that may call anything.

A pickle is a row of instructions for a stack machine: push a constant, make a tuple of what lies above the mark, put the top
into the memo, call a function that is named by module and name. The standard library's machine imports whatever is named, sets
attributes of what it finds, allocates gigabytes for an index of the memo, and hashes keys that take years. This one knows the
instructions that data needs and the functions it is given; every other one ends it. `pickletools.genops` takes the bytes apart.

What cannot happen: an import; a call of anything but the functions of `allowed`; a change of an object's attributes; a
recursion, since nothing here descends into a value; an allocation that the pickle's own size does not pay for, since
instructions, numbers and keys are limited and a doubled value is a second reference. What is left to the caller: a value may
hold itself, and nested pairs of one and the same list are exponentially long when walked or printed.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from .errors import CheckpointError
from .shown import plain

MAX_INSTRUCTIONS = 5_000_000
"""Some forty belong to a tensor. Each makes at most an empty dictionary, of 64 bytes."""
MAX_BITS = 128
"""Of an integer: enough for PyTorch's magic number, and short enough to be printed."""

MAX_MARKS = 1000
"""Open at once: each is a value inside of another one, and takes a hundred times its byte."""

_LONGEST_LINE = 1 << 16
_CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_TEXTS_OF_PYTHON_2 = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_SIMPLE = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(CheckpointError):
    """A pickle that would do more than to hold data."""

    def __init__(self, where: str, what: str):
        super().__init__(f"{where}: refused: the pickle {what}, which is no part of what such a file holds")


def load(
    data: bytes,
    where: str,
    allowed: Mapping[tuple[str, str], Callable],
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of a pickle that is all of `data`. Every problem is a CheckpointError that begins with `where`.

    `allowed`: (module, name) -> what stands for it. It may be called by the pickle, with any arguments: it must check them
    without printing or walking them, must not copy a list that it may be given again, and may raise any exception.
    A state that the pickle sets is given to the `__setstate__` of the object's type, ignored for dictionaries (PyTorch's state
    dicts have notes as attributes), and refused for everything else. `persistent_load` is called as pickle's own is.
    """
    stream = io.BytesIO(data)
    value = load_next(stream, len(data), where, allowed, persistent_load)
    if stream.tell() != len(data):
        raise CheckpointError(f"{where}: {len(data) - stream.tell():,} bytes follow the end of the pickle")
    return value


def load_next(
    file: BinaryIO,
    size: int,
    where: str,
    allowed: Mapping[tuple[str, str], Callable],
    persistent_load: Callable[[Any], Any] | None = None,
    instructions: int = 0,
    byte_arrays: bool = False,
) -> Any:
    """As `load`, of the pickle that begins at the position of a file of `size` bytes, which is left behind its end.
    `instructions`: how many it may have, if more than MAX_INSTRUCTIONS. `byte_arrays`: whether it may hold those of protocol 5,
    which come as bytes; no checkpoint has them."""
    try:
        machine = _Machine(where, allowed, persistent_load, byte_arrays)
        return machine.run(_Bounded(file, size), max(instructions, MAX_INSTRUCTIONS))
    except CheckpointError:
        raise
    except Exception as error:  # whatever the functions of `allowed` and pickletools say to bytes that make no sense
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise CheckpointError(f"{where}: is no pickle of what it should hold, or damaged ({plain(reason)})") from error


class _Bounded:
    """A file that never reads more than is there, whatever is asked for: files allocate first."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, max(0, self._size - self._file.tell())) if count > 8 else count)

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)


class _Machine:
    def __init__(
        self,
        where: str,
        allowed: Mapping[tuple[str, str], Callable],
        persistent_load: Callable[[Any], Any] | None,
        byte_arrays: bool,
    ):
        self.where, self.allowed, self.persistent_load, self.byte_arrays = where, allowed, persistent_load, byte_arrays
        self.callable = {id(function) for function in allowed.values()}
        self.stack: list = []
        self.below: list[list] = []
        """The stacks below each mark."""
        self.memo: dict[int, Any] = {}

    def run(self, file: _Bounded, instructions: int) -> Any:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            if count >= instructions:
                raise CheckpointError(f"{self.where}: the pickle has more than {instructions:,} instructions")
            name = opcode.name
            if name in _CONSTANTS:
                if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
                    raise ValueError(f"an integer of {argument.bit_length():,} bits at byte {position}")
                self.stack.append(argument)
            elif name in _SIMPLE:
                self.stack.append(_SIMPLE[name])
            elif name in _SHORT_TUPLES:
                self.stack.append(tuple(self._pop_some(_SHORT_TUPLES[name])))
            elif name in _TEXTS_OF_PYTHON_2:
                self.stack.append(argument.encode("latin-1").decode("utf-8"))
            elif name == "STOP":
                break
            elif method := getattr(self, f"_do_{name.lower()}", None):
                method(argument)
            else:
                raise Refused(self.where, f"has {name}")
        if len(self.stack) != 1 or self.below:
            raise ValueError("the stack does not end with one value")
        return self.stack[0]

    def _do_bytearray8(self, content: bytearray) -> None:
        if not self.byte_arrays:
            raise Refused(self.where, "has BYTEARRAY8")
        self.stack.append(bytes(content))

    def _pop_some(self, count: int) -> list:
        if count > len(self.stack):
            raise ValueError("the stack is empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _pop_mark(self) -> list:
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def _do_proto(self, version: int) -> None:
        if version > 5:
            raise ValueError(f"protocol {version} is unknown")

    def _do_frame(self, size: int) -> None:
        """Frames help who reads from a pipe."""

    def _do_mark(self, _) -> None:
        if len(self.below) >= MAX_MARKS:
            raise ValueError(f"more than {MAX_MARKS:,} marks are open")
        self.below.append(self.stack)
        self.stack = []

    def _do_pop(self, _) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark()

    def _do_pop_mark(self, _) -> None:
        self._pop_mark()

    def _do_dup(self, _) -> None:
        self.stack.append(self.stack[-1])

    def _do_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _do_binput = _do_long_binput = _do_put

    def _do_memoize(self, _) -> None:
        self._do_put(len(self.memo))

    def _do_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _do_binget = _do_long_binget = _do_get

    def _do_tuple(self, _) -> None:
        items = tuple(self._pop_mark())
        self.stack.append(items)

    def _do_empty_list(self, _) -> None:
        self.stack.append([])

    def _do_list(self, _) -> None:
        items = self._pop_mark()
        self.stack.append(items)

    def _do_append(self, _) -> None:
        self._extend(self._pop_some(1))

    def _do_appends(self, _) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("items are added to something that is no list")
        self.stack[-1].extend(items)

    def _do_empty_dict(self, _) -> None:
        self.stack.append({})

    def _do_dict(self, _) -> None:
        items = self._pop_mark()
        self.stack.append({})
        self._update(items)

    def _do_setitem(self, _) -> None:
        self._update(self._pop_some(2))

    def _do_setitems(self, _) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("entries are added to something that is no dictionary")
        add_entries(target, zip(items[::2], items[1::2], strict=True))

    def _do_global(self, names: str) -> None:
        self._resolve(*names.split(" ", 1))

    def _do_stack_global(self, _) -> None:
        self._resolve(*self._pop_some(2))

    def _resolve(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a function's name is no text")
        if (module, name) not in self.allowed:
            raise Refused(self.where, f"would run {plain(f'{module}.{name}')}")
        self.stack.append(self.allowed[module, name])

    def _do_reduce(self, _) -> None:
        function, arguments = self._pop_some(2)
        if id(function) not in self.callable or type(arguments) is not tuple:
            raise ValueError("something is called that is no function")
        self.stack.append(function(*arguments))

    _do_newobj = _do_reduce

    def _do_build(self, _) -> None:
        (state,) = self._pop_some(1)
        target = self.stack[-1]
        if isinstance(target, dict):
            return
        set_state = getattr(type(target), "__setstate__", None)
        if set_state is None or id(target) in self.callable:
            raise ValueError("attributes are set of something that has none")
        set_state(target, state)

    def _do_binpersid(self, _) -> None:
        (identity,) = self._pop_some(1)
        self._do_persid(identity)

    def _do_persid(self, identity: Any) -> None:
        if self.persistent_load is None:
            raise ValueError("it refers to something outside of it")
        self.stack.append(self.persistent_load(identity))


def add_entries(target: dict, entries: Any) -> None:
    """Put (key, value) pairs into a dictionary; ValueError for a key that is there, or whose hash could be a trap."""
    for key, value in entries:
        if not (key is None or type(key) in (str, bytes, bool) or type(key) is int and key.bit_length() < 60):
            raise ValueError(f"a key is of type {type(key).__name__}")
        if key in target:
            raise ValueError("a key is there twice")
        target[key] = value
