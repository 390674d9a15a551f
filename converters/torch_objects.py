"""What stands in the pickle of a PyTorch checkpoint: storages, tensors, and the dictionaries around a model's tensors.

Each function here takes the place of one of PyTorch's that pickles name. They get whatever arguments the file has, so they check
types, and leave the numbers to whoever knows the tensor's name and the file's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.errors import CheckpointError
from ..core.safe_pickle import add_entries
from ..core.shown import plain, shown
from .model_files import is_name
from .tensors import DTYPES

DTYPE_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""PyTorch's name -> that of `tensors.DTYPES`."""
STORAGE_NAMES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage",
    "bool": "BoolStorage",
}  # fmt: skip
"""The types that have a class of storages; tensors of the others are made of bytes."""
WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
"""Keys of training checkpoints under which the model's tensors are."""

_OTHER_STORAGES = {"complex64": "ComplexFloatStorage", "complex128": "ComplexDoubleStorage"}
_OTHER_DTYPES = ("complex64", "complex128", "complex32", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
_SIZES = {None: 1, "complex64": 8, "complex128": 16, **{name: DTYPES[own].itemsize for name, own in DTYPE_NAMES.items()}}
_MAX_TEXT = 1 << 26
"""Of all names together: a pickle can nest one long key in itself."""


@dataclass(frozen=True)
class Storage:
    """A row of elements, by the key under which the file has its bytes."""

    key: str
    dtype: str | None
    """PyTorch's name; None for bytes."""
    elements: int
    first: int = 0
    """The element with which an old view of a storage begins."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.elements * _SIZES[self.dtype]

    @classmethod
    def from_reference(cls, identity: Any) -> Storage:
        """What a pickle refers to."""
        kind, storage_type, key, _location, elements, *view = identity
        if kind != "storage":
            raise ValueError("a reference to something that is no storage")
        if not (isinstance(storage_type, _StorageType) and isinstance(key, str) and _is_count(elements) and len(view) <= 1):
            raise ValueError("a storage that is none")
        first = 0
        if view and view[0] is not None:
            _key, first, _size = view[0]
            if not _is_count(first):
                raise ValueError("a view of a storage that is none")
        return cls(key, storage_type.dtype, elements, first)


@dataclass(frozen=True)
class TorchTensor:
    """A tensor as the file describes it; the numbers are not checked."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _StorageType:
    dtype: str | None


@dataclass(frozen=True)
class _Dtype:
    name: str


class _Class:
    """A class that is only mentioned."""


class _Unread:
    """A value that is no tensor's, of which nothing is kept."""

    def __init__(self, *_arguments: Any):
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _numbers(value: Any) -> tuple[int, ...]:
    if type(value) not in (tuple, list) or len(value) > 64 or not all(type(number) is int for number in value):
        raise ValueError("a shape that is none")
    return tuple(value)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None) -> TorchTensor:
    if not isinstance(storage, Storage) or dtype is None or not _is_count(offset):
        raise ValueError("a tensor that is none")
    return TorchTensor(storage, dtype, storage.first + offset, _numbers(shape), _numbers(strides))


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> TorchTensor:
    return _tensor(storage, offset, shape, strides, getattr(storage, "dtype", None))


def _rebuild_tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> TorchTensor:
    _check_metadata(metadata)
    return _rebuild_tensor(storage, offset, shape, strides)


def _rebuild_tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> TorchTensor:
    _check_metadata(metadata)
    return _tensor(storage, offset, shape, strides, dtype.name if isinstance(dtype, _Dtype) else None)


def _check_metadata(metadata: Any) -> None:
    if metadata:
        raise ValueError("a tensor that is to be negated or conjugated when it is read")


def _rebuild_parameter(data: Any, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> TorchTensor:
    if not isinstance(data, TorchTensor):
        raise ValueError("a parameter that is none")
    return data


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> TorchTensor:
    known = (_rebuild_tensor, _rebuild_tensor_v2, _rebuild_tensor_v3, _rebuild_parameter)
    if function not in known or type(arguments) is not tuple:
        raise ValueError("a tensor of a kind that is unknown")
    return function(*arguments)


def _ordered_dict(*arguments: Any) -> dict:
    """Python 2 gave the entries as a list; it is emptied, so that no list makes many dictionaries."""
    found: dict = {}
    if arguments:
        (entries,) = arguments
        if type(entries) is not list:
            raise ValueError("a dictionary that is none")
        add_entries(found, entries)
        entries.clear()
    return found


def _same(value: Any) -> Any:
    return value


def _allowed() -> dict[tuple[str, str], Any]:
    allowed: dict[tuple[str, str], Callable | Any] = {
        ("collections", "OrderedDict"): _ordered_dict,
        ("torch", "Size"): _same,
        ("torch", "Tensor"): _Class(),
        ("torch", "device"): _Unread,
        ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    }
    # What trainers put beside the model: options, counters, numbers of NumPy's.
    for module, name in (
        *(("argparse", "Namespace"), ("collections", "Counter"), ("_codecs", "encode"), ("numpy", "dtype")),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *((module, name) for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "slice", "complex")),
    ):
        allowed[module, name] = _Unread
    allowed["numpy", "ndarray"] = _Class()
    for dtype, name in (STORAGE_NAMES | _OTHER_STORAGES).items():
        for module in ("torch", "torch.cuda", "torch.storage"):
            allowed[module, name] = _StorageType(dtype)
    for module, name in (("torch.storage", "UntypedStorage"), ("torch", "UntypedStorage"), ("torch.storage", "_UntypedStorage")):
        allowed[module, name] = _StorageType(None)
    for dtype in (*DTYPE_NAMES, *_OTHER_DTYPES):
        allowed["torch", dtype] = _Dtype(dtype)
    return allowed


ALLOWED = _allowed()
"""What a pickle may name."""


def named_tensors(root: Any, where: str, notes: list[str]) -> tuple[dict[str, TorchTensor], dict[str, str]]:
    """(the model's tensors, why the other entries are none of them) of what a file holds."""
    skipped: dict[str, str] = {}
    path = ""
    for _ in WRAPPERS:
        if not isinstance(root, dict):
            break
        key = next((key for key in WRAPPERS if isinstance(root.get(key), dict) and _has_tensors(root[key])), None)
        if key is None:
            break
        skipped |= {f"{path}{plain(_text(other))}": f"is beside '{path}{key}'" for other in root if other != key}
        path, root = f"{path}{key}.", root[key]
    if not isinstance(root, dict):
        raise CheckpointError(f"{where}: holds a {_kind(root)}, expected a dictionary of tensors, as model.state_dict() is")
    if path:
        notes.append(f"the tensors are those of its entry '{path[:-1]}'")
    tensors, others = _walk(root, where)
    skipped |= {f"{path}{name}": reason for name, reason in others.items()}
    if not tensors:
        raise CheckpointError(f"{where}: holds no tensors by name, expected a dictionary of tensors, as model.state_dict() is")
    return tensors, skipped


def _walk(root: dict, where: str) -> tuple[dict[str, TorchTensor], dict[str, str]]:
    tensors: dict[str, TorchTensor] = {}
    others: dict[str, str] = {}
    seen = {id(root)}
    rows = [("", iter(root.items()))]
    text = 0
    while rows:
        prefix, entries = rows[-1]
        for key, value in entries:
            name = f"{prefix}{_text(key)}"
            text += len(name)
            if text > _MAX_TEXT:
                raise CheckpointError(f"{where}: its names have more than {_MAX_TEXT:,} letters")
            if isinstance(value, dict):
                if id(value) in seen:
                    raise CheckpointError(f"{where}: {plain(name)} is a dictionary that is there twice")
                seen.add(id(value))
                rows.append((f"{name}.", iter(value.items())))
                break
            if not isinstance(value, TorchTensor):
                others[plain(name)] = f"is a {_kind(value)}, no tensor"
            elif not is_name(name) or name in tensors:
                twice = " twice" if name in tensors else ""
                raise CheckpointError(f"{where}: has a tensor named {shown(name)}{twice}, which no model can have")
            else:
                tensors[name] = value
        else:
            rows.pop()
    return tensors, others


def _has_tensors(root: dict) -> bool:
    seen, rest = {id(root)}, [root]
    while rest:
        for value in rest.pop().values():
            if isinstance(value, TorchTensor):
                return True
            if isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                rest.append(value)
    return False


def _kind(value: Any) -> str:
    names = {TorchTensor: "tensor", Storage: "storage", str: "text", type(None): "None", _Unread: "object"}
    return names.get(type(value), type(value).__name__)


def _text(key: Any) -> str:
    return key[:1001] if isinstance(key, str) else str(key)[:1001]
