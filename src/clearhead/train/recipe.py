"""Recipes: how to train, as a TOML file and as key=value on the command line, read into frozen dataclasses.

A table is read by the annotations of the dataclass that it fills, so a setting is written down once, where it is used.
Unknown keys and wrong types are refused with the nearest name; where a field may be one of several dataclasses, the
table's `kind` says which, and without one it is the field's default. What a dataclass refuses of itself is told by the
recipe's keys.
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
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
        there = [str(each) for each in sorted(path.parent.glob("*.toml"))]
        near = get_close_matches(str(path), there, n=1)
        hint = f"did you mean {near[0]}?" if near else f"looked in {path.parent.resolve()}."
        raise ConfigError(f"there is no recipe {path}; {hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the recipe's file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


class _Changed(dict[str, Any]):
    """A table whose kind was changed: what was set for the kind `before` holds as far as the new kind has it."""

    before: frozenset[str] = frozenset()


def with_changes(tables: Table, changes: Iterable[str]) -> Table:
    """The tables with each `loop.optimiser.rate=3e-4` written into them; values are TOML, or else plain text."""
    result: _Changed = _copied(tables)
    for change in changes:
        name, is_there, text = change.partition("=")
        keys = name.strip().split(".")
        if not is_there or not all(keys):
            raise ConfigError(f"{change!r} is not key=value, such as loop.steps=1000.")
        place = result
        for depth, key in enumerate(keys[:-1]):
            place = place.setdefault(key, _Changed())
            if not isinstance(place, _Changed):
                raise ConfigError(f"{change!r}: {'.'.join(keys[: depth + 1])} is a value, not a table.")
        last, value = keys[-1], _value(text.strip())
        if last == "kind" and _plain(str(place.get("kind", value))) != _plain(str(value)):
            place.before = frozenset(place)
        place[last], place.before = _copied(value), place.before - {last}
    return result


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return _Changed((key, _copied(each)) for key, each in value.items())
    return [_copied(each) for each in value] if isinstance(value, list) else value


def filled(kind: type[T], table: Mapping[str, Any], where: str = "", base: T | None = None) -> T:
    """The dataclass that a table describes. `where` is the table's own name, for what is said of it. base: what holds
    where the table says nothing, in place of the dataclass's own defaults.

    Raises ConfigError for a key that is no field, a field that is missing, a value of the wrong type; and whatever the
    dataclass itself refuses.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind) if field.init}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
            raise ConfigError(
                f"{_named(where, key)} is no setting; {hint if known else f'{spelled(kind)!r} has none.'}"
            )
    values = {}
    for name, field in known.items():
        if name in table:
            values[name] = _read(hints[name], table[name], _named(where, name), _default(field))
        elif base is not None:
            values[name] = getattr(base, name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{_named(where, name)} is missing; it has no default.")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(_by_keys(str(error), kind, known, where)) from None


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _by_keys(message: str, kind: type, known: Iterable[str], where: str) -> str:
    """What a dataclass says of itself (`AdamW.rate=-1 …`), by the recipe's key: `loop.optimiser.rate=-1 …`."""
    field = re.match(rf"(?:{kind.__name__}\.)?(\w+)(?==| is )", message)
    if field is None or field[1] not in known:
        return message
    return _named(where, field[1]) + message[field.end() :]


def _named(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _read(hint: Any, value: Any, where: str, default: Any = None) -> Any:
    origin, choices = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _read_union(choices, value, where, default)
    if origin is Literal:
        if value not in choices:
            near = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
            hint_text = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(repr, choices))}."
            raise ConfigError(f"{where}={value!r} is not a choice; {hint_text}")
        return value
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}={value!r} should be a table of settings.")
        inside = {key: each for key, each in value.items() if key != "kind"}
        return filled(hint, inside, where, default if type(default) is hint else None)  # type: ignore[arg-type]
    if origin is tuple:
        if isinstance(value, str) and choices == (str, ...):
            value = [value]  # data.source.paths=book.txt: a list of one
        if not isinstance(value, list):
            raise ConfigError(f"{where}={value!r} should be a list.")
        kinds = [choices[0]] * len(value) if len(choices) == 2 and choices[1] is Ellipsis else list(choices)
        if len(kinds) != len(value):
            raise ConfigError(f"{where}={value!r} should be a list of {len(kinds)}.")
        return tuple(_read(one, each, f"{where}[{n}]") for n, (one, each) in enumerate(zip(kinds, value, strict=True)))
    return _read_plain(hint, value, where)


def _read_union(choices: tuple[Any, ...], value: Any, where: str, default: Any) -> Any:
    if type(None) in choices and value in (None, "none"):
        return None
    tables = {str(choice.__name__): choice for choice in choices if isinstance(choice, type) and is_dataclass(choice)}
    if tables and isinstance(value, str) and all(is_dataclass(each) or each is type(None) for each in choices):
        value = {"kind": value}  # a choice whose settings all have defaults: tracker = "tensorboard"
    if tables and isinstance(value, dict):
        if len(tables) == 1:
            return _read(next(iter(tables.values())), value, where, default)
        kind, held = _kind(tables.values(), value, where, default)
        return _read(kind, held, where, None if "kind" in value else default)
    plain = [choice for choice in choices if not is_dataclass(choice) and choice is not type(None)]
    for choice in plain[:-1]:
        try:
            return _read(choice, value, where)
        except ConfigError:
            continue
    if not plain:
        raise ConfigError(f"{where}={value!r} should be a table of settings.")
    return _read(plain[-1], value, where)


def _kind(choices: Iterable[Any], table: Table, where: str, default: Any) -> tuple[Any, Table]:
    """The dataclass that a table's `kind` names, or that of the field's default; and what the table holds for it."""
    kinds = {spelled(choice): choice for choice in choices}
    asked = table.get("kind")

    def having(key: str) -> str:
        return ", ".join(repr(name) for name, choice in kinds.items() if key in {each.name for each in fields(choice)})

    if asked is None and type(default) in kinds.values():
        chosen = spelled(type(default))
    elif asked is None:
        raise ConfigError(f"{where}.kind is missing; choose from {', '.join(map(repr, kinds))}.")
    else:
        plain = {_plain(name): name for name in kinds}
        if _plain(str(asked)) not in plain:
            near = get_close_matches(_plain(str(asked)), plain, n=1)
            hint = f"did you mean {plain[near[0]]!r}?" if near else f"choose from {', '.join(map(repr, kinds))}."
            raise ConfigError(f"{where}.kind={asked!r} is not a choice; {hint}")
        chosen = plain[_plain(str(asked))]
    own = [each.name for each in fields(kinds[chosen])]
    before = getattr(table, "before", ())
    held = {key: each for key, each in table.items() if key in own or key not in before}
    for key in held:
        if key not in ("kind", *own) and not get_close_matches(key, own, n=1) and having(key):
            raise ConfigError(
                f"{where}.{key} is a setting of {having(key)}, and {where}.kind is {chosen!r}; choose another kind, or "
                "leave it out."
            )
    return kinds[chosen], held


def spelled(kind: type | str) -> str:
    """A dataclass's name as recipes spell it: `WarmupStableDecay` is `warmup-stable-decay`."""
    name = kind if isinstance(kind, str) else kind.__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "-", name).lower()


def _plain(name: str) -> str:
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
