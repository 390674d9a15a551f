"""Plugins as recipes name them: a Python file, an importable module, or an entry point of group `crossdistil`.

A plugin is the user's own code, which runs with all rights of the command. It is loaded only where a recipe or an option names
it. Its bytes are part of the recipe's digest; a recipe that was written into a run folder holds their SHA-256, and bytes that
have changed are refused before any of them runs. Worker interpreters read the same recipe, and so load the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, ValidationError

from .errors import Errors, PluginError, RecipeError, did_you_mean
from .kinds.known_kinds import add_kinds
from .plain_names import expanded
from .plugin_errors import import_error
from .recipe_errors import describe
from .registered import BACKENDS, RECORDS, Registered, RegisteredBackend, RegisteredFamily, RegisteredKind, Registration, gathered
from .section import Section
from .shown import plain, shown

GROUP = "crossdistil"
"""Of the entry points by which installed packages name their plugins."""
_LARGEST = 1 << 22
"""Bytes of a file, which is code that someone wrote."""
_LOADED: dict[tuple[str, str], tuple[Registration, ...]] = {}
"""(plugin, SHA-256) -> what it registered, of those that this process has loaded."""
_IN_EFFECT: dict[str, PluginSection] = {}
"""Plugin -> as it was loaded last, of those whose families, kinds of tasks or backends this process knows."""


class PluginSection(Section):
    """A plugin: `plugin` is the path of a .py file, an installed module, or an entry point's name; `sha256` is that of the file,
    or of all .py files of the module's package, filled in when the recipe is read."""

    plugin: str = Field(min_length=1, max_length=4096)
    """The path of a .py file, an installed module, or an entry point's name."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Of its bytes; filled in when the recipe is read, and held against them when it is read again."""

    @property
    def is_file(self) -> bool:
        """Whether it is named by a path."""
        return names_file(self.plugin)


class _Named(Section):
    """The key of a recipe that is read before all others, which depend on it."""

    plugins: tuple[PluginSection, ...] = ()


def named_plugins(tree: dict[str, Any], source: str, more: Sequence[str] = ()) -> tuple[PluginSection, ...]:
    """The plugins of a recipe's plain data, and `more`, none of them loaded; `source` names the recipe. Raises RecipeError."""
    given = tree.get("plugins", [])
    if not more and given == []:
        return ()
    if isinstance(given, list):
        given = _anchored([{"plugin": item} if isinstance(item, str) else item for item in [*given, *more]])
    try:
        return with_digests(_Named.model_validate({"plugins": given}).plugins)
    except ValidationError as error:
        raise RecipeError(source, describe(error, _Named)) from error
    except PluginError as error:
        raise RecipeError(source, str(error).splitlines()) from error


def names_file(plugin: str) -> bool:
    """Whether a plugin is named by a path, and not by a module."""
    return plugin.endswith(".py") or "/" in plugin or os.sep in plugin


def _anchored(value: list[Any]) -> list[Any]:
    """A recipe's `plugins` with the paths of files from the current folder on; what is no plugin is left as it is."""
    return [_anchored_item(item) for item in value]


def _anchored_item(item: Any) -> Any:
    if isinstance(item, dict) and isinstance(item.get("plugin"), str):
        return {**item, "plugin": _anchored_item(item["plugin"])}
    if isinstance(item, str) and names_file(item) and "\0" not in item:
        try:
            return str(expanded(Path(item)).absolute())
        except ValueError:
            return item  # there is no such user: the file is told as missing
    return item


def with_digests(sections: Sequence[PluginSection]) -> tuple[PluginSection, ...]:
    """The plugins, each once, with the SHA-256 of its bytes. Raises PluginError for all that are missing, or whose bytes are not
    those that the recipe names; nothing of them has run then."""
    errors, found = Errors(), {}
    for index, section in enumerate(sections):
        digest = errors.collect(_digest, section.plugin, f"plugins[{index}]")
        if digest is None:
            continue
        if section.sha256 not in (None, digest):
            changed = f"has changed since the recipe named it: SHA-256 {digest[:12]}..., expected {section.sha256[:12]}..."
            errors.append(PluginError(f"plugins[{index}]: {plain(section.plugin)}: {changed}"))
        found[section.plugin] = section.model_copy(update={"sha256": digest})
    errors.throw()
    return tuple(found.values())


def load_plugins(sections: Iterable[PluginSection]) -> Registered:
    """Run the plugins, each once in a process, and return what they have registered. Their families, kinds and backends are
    known to this process from now on, in place of others of the same name, of plugins that other recipes named. Raises
    PluginError, which names file and line."""
    registrations: list[Registration] = []
    sections = tuple(sections)
    for section in sections:
        key = section.plugin, section.sha256
        if key not in _LOADED:
            _LOADED[key] = _load(section)
        for each in _LOADED[key]:
            same = [other for other in registrations if type(other) is type(each) and other.name == each.name]
            if same and same[0].place != each.place:
                raise PluginError(f"{each.place}: '{each.name}' is registered already, at {same[0].place}; choose another name")
            registrations.append(each)
    for section in sections:
        _take_effect(section, _LOADED[section.plugin, section.sha256])
    return gathered(registrations)


def loaded_plugins() -> list[dict[str, Any]]:
    """The plugins whose families, kinds and backends this process knows, as plain data, for a process that it starts."""
    return [section.model_dump() for section in _IN_EFFECT.values()]


def load_the_same(plugins: Any) -> None:
    """Load what `loaded_plugins` of the process says that started this one. Raises CrossdistilError."""
    if plugins:
        load_plugins(named_plugins({"plugins": plugins}, "a worker"))


def _take_effect(section: PluginSection, registrations: Iterable[Registration]) -> None:
    families = [each.configuration for each in registrations if isinstance(each, RegisteredFamily)]
    kinds = [each.kind for each in registrations if isinstance(each, RegisteredKind)]
    backends = {each.name: each for each in registrations if isinstance(each, RegisteredBackend)}
    name = Path(section.plugin).name if section.is_file else section.plugin
    if families:
        from .models.known_families import add_families  # which few plugins need

        for configuration in families:
            configuration.plugin = name
            configuration.code = section.sha256
        add_families(families)
    for kind in kinds:
        type(kind).plugin, type(kind).code = name, section.sha256
    add_kinds(kinds)
    BACKENDS.update(backends)
    if families or backends or kinds:
        _IN_EFFECT[section.plugin] = section


def _digest(plugin: str, key: str) -> str:
    return hashlib.sha256(_read(plugin, key) if names_file(plugin) else _package_bytes(plugin, key)).hexdigest()


def _read(plugin: str, key: str) -> bytes:
    path, shown_path = Path(plugin), plain(plugin, 300)
    if "\0" in plugin:
        raise PluginError(f"{key}: {shown_path}: is no path of a file")
    try:
        if path.is_dir():
            raise PluginError(f"{key}: {shown_path}: is a folder, expected a Python file")
        if not path.is_file():
            near = did_you_mean(path.name, [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else ())
            raise PluginError(f"{key}: {shown_path}: no such file{near}")
        data = path.read_bytes()
    except OSError as error:
        raise PluginError(f"{key}: {shown_path}: cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise PluginError(f"{key}: {shown_path}: {len(data):,} bytes, expected a Python file of at most {_LARGEST:,}")
    return data


def _package_bytes(plugin: str, key: str) -> bytes:
    """All that the digest of a module is made of: the names and bytes of the .py files of its package."""
    module = _module_of(plugin, key)
    top = module.partition(".")[0]
    spec = _top_spec(top)
    if spec is None:
        raise _no_module(plugin, key)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted((file.relative_to(folder).as_posix(), file) for folder in folders for file in folder.rglob("*.py"))
    if not folders and spec.origin is not None and spec.origin.endswith(".py"):
        files = [(Path(spec.origin).name, Path(spec.origin))]
    if not files:
        raise PluginError(f"{key}: {plain(plugin)}: is no module with Python files")
    return b"".join(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode() for name, file in files)


def _module_of(plugin: str, key: str) -> str:
    """The module that a name without a path means."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", plugin) and plugin not in _entry_points():
        expected = "the path of a .py file, the name of an installed module, or an entry point"
        raise PluginError(f"{key}: got {shown(plugin)}, expected {expected}")
    return _entry_points().get(plugin, plugin)


def _entry_points() -> dict[str, str]:
    return {point.name: point.module for point in importlib.metadata.entry_points(group=GROUP)}


def _top_spec(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _no_module(plugin: str, key: str) -> PluginError:
    near = did_you_mean(plugin, _entry_points())
    beside = Path(*plugin.split(".")).with_suffix(".py")
    hint = f"; a file is named by its path: {beside}" if beside.is_file() else near
    return PluginError(f"{key}: {sys.executable} has no module '{plain(plugin)}'{hint}")


def _load(section: PluginSection) -> tuple[Registration, ...]:
    if section.is_file:
        found = _run_file(section)
    else:
        found = _import_module(section)
    if not found:
        what = "registers nothing; expected a call of register_loss, register_metric or another register_ function"
        raise PluginError(f"{plain(section.plugin)}: {what}")
    return tuple(found)


def _run_file(section: PluginSection) -> list[Registration]:
    path, data = section.plugin, _read(section.plugin, "plugins")
    digest = hashlib.sha256(data).hexdigest()
    if digest != section.sha256:
        raise PluginError(f"{plain(path)}: has changed since the recipe was read")
    own = hashlib.sha256(path.encode(errors="surrogateescape") + data).hexdigest()[:12]
    name = f"crossdistil_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', Path(path).stem)}_{own}"
    module = ModuleType(name)
    module.__file__ = path
    RECORDS.pop(name, None)
    # Compilers of frameworks and pydantic look functions up by their module.
    sys.modules[name] = module
    try:
        exec(compile(data, path, "exec", dont_inherit=True), module.__dict__)
    except SyntaxError as error:
        del sys.modules[name]
        raise PluginError(f"{plain(path)}:{error.lineno or 1}: is no Python: {plain(error.msg)}") from error
    except BaseException as error:
        del sys.modules[name]
        raise import_error(error, path, True) from error
    return RECORDS.get(name, [])


def _import_module(section: PluginSection) -> list[Registration]:
    name = _module_of(section.plugin, "plugins")
    try:
        module = importlib.import_module(name)
    except SyntaxError as error:
        raise PluginError(f"{error.filename}:{error.lineno or 1}: is no Python: {plain(error.msg)}") from error
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise _no_module(section.plugin, "plugins") from error
        raise import_error(error, section.plugin, False) from error
    found = list(RECORDS.get(name, []))
    if hasattr(module, "__path__"):
        found += [each for other, own in RECORDS.items() if other.startswith(f"{name}.") for each in own]
    return found
