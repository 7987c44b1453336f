"""Recipes: how to train, as a TOML file and as key=value on the command line, read into frozen dataclasses.

A table is read by the annotations of the dataclass that it fills, so a setting is written down once, where it is used.
Unknown keys and wrong types are refused with the nearest name; where a field may be one of several dataclasses, the
table's `kind` says which.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from clearhead.errors import ConfigError

T = TypeVar("T")
Table = dict[str, Any]


def read_toml(path: Path) -> Table:
    """The tables of a recipe. Raises ConfigError, with the line, where it is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no recipe {path}.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the recipe's file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


def with_changes(tables: Table, changes: Iterable[str]) -> Table:
    """The tables with each `loop.optimiser.rate=3e-4` written into them; values are TOML, or else plain text."""
    result = _copied(tables)
    for change in changes:
        name, is_there, text = change.partition("=")
        keys = name.strip().split(".")
        if not is_there or not all(keys):
            raise ConfigError(f"{change!r} is not key=value, such as loop.steps=1000.")
        place = result
        for depth, key in enumerate(keys[:-1]):
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{change!r}: {'.'.join(keys[: depth + 1])} is a value, not a table.")
        place[keys[-1]] = _value(text.strip())
    return result


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def filled(kind: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """The dataclass that a table describes. `where` is the table's own name, for what is said of it.

    Raises ConfigError for a key that is no field, a field that is missing, a value of the wrong type; and whatever the
    dataclass itself refuses.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind) if field.init}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
            raise ConfigError(f"{_named(where, key)} is no setting; {hint}")
    values = {}
    for name, field in known.items():
        if name in table:
            values[name] = _read(hints[name], table[name], _named(where, name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{_named(where, name)} is missing; it has no default.")
    return kind(**values)


def _named(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, choices = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _read_union(choices, value, where)
    if origin is Literal:
        if value not in choices:
            near = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
            hint_text = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(repr, choices))}."
            raise ConfigError(f"{where}={value!r} is not a choice; {hint_text}")
        return value
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}={value!r} should be a table of settings.")
        return filled(hint, {key: each for key, each in value.items() if key != "kind"}, where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where}={value!r} should be a list.")
        inside = [choices[0]] * len(value) if len(choices) == 2 and choices[1] is Ellipsis else list(choices)
        if len(inside) != len(value):
            raise ConfigError(f"{where}={value!r} should be a list of {len(inside)}.")
        return tuple(_read(one, each, f"{where}[{n}]") for n, (one, each) in enumerate(zip(inside, value, strict=True)))
    return _read_plain(hint, value, where)


def _read_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if type(None) in choices and value in (None, "none"):
        return None
    tables = {str(choice.__name__): choice for choice in choices if isinstance(choice, type) and is_dataclass(choice)}
    if tables and isinstance(value, dict):
        if len(tables) == 1:
            return _read(next(iter(tables.values())), value, where)
        kinds = {_spelled(name): choice for name, choice in tables.items()}
        asked = value.get("kind")
        if asked is None:
            raise ConfigError(f"{where}.kind is missing; choose from {', '.join(map(repr, kinds))}.")
        if _spelled(str(asked)) not in kinds:
            near = get_close_matches(_spelled(str(asked)), kinds, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(repr, kinds))}."
            raise ConfigError(f"{where}.kind={asked!r} is not a choice; {hint}")
        return _read(kinds[_spelled(str(asked))], value, where)
    plain = [choice for choice in choices if not is_dataclass(choice) and choice is not type(None)]
    for choice in plain[:-1]:
        try:
            return _read(choice, value, where)
        except ConfigError:
            continue
    if not plain:
        raise ConfigError(f"{where}={value!r} should be a table of settings.")
    return _read(plain[-1], value, where)


def _spelled(name: str) -> str:
    """`WarmupStableDecay`, `warmup-stable-decay` and `warmup_stable_decay` are one."""
    return "".join(char for char in name.lower() if char.isalnum())


def _read_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    word = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    raise ConfigError(f"{where}={value!r} should be {word.get(hint, getattr(hint, '__name__', str(hint)))}.")


def told(config: Any) -> Any:
    """A dataclass as the table that `filled` reads back: what is saved beside a run."""
    if is_dataclass(config) and not isinstance(config, type):
        inside = {field.name: told(getattr(config, field.name)) for field in fields(config) if field.init}
        return {"kind": type(config).__name__, **inside}
    if isinstance(config, Mapping):
        return {key: told(each) for key, each in config.items()}
    if isinstance(config, list | tuple):
        return [told(each) for each in config]
    return str(config) if isinstance(config, Path) else config
