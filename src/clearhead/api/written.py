"""A recipe as a person would write it: TOML, with nothing in it that goes without saying.

    recipe == filled(Recipe, tomllib.loads(as_toml(recipe)))

Settings that have their usual value are left out. Each part is a table; what is inside a part, and has few settings, is
on one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, get_args, get_type_hints

from clearhead.api.recipe import Recipe
from clearhead.train.recipe import spelled

WIDE = 100
"""Characters: a longer table has lines of its own."""

ORDER = ("data", "tokenizer", "model", "adapters", "objective", "loop", "evaluation", "samples")
"""From what is read to what is done with it; other parts come last."""

Table = dict[str, Any]


def as_toml(recipe: Recipe, opening: str = "") -> str:
    """The recipe as TOML. opening: lines of comment that come first."""
    tables = tables_of(recipe)
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    lines = [f"# {line}".rstrip() for line in opening.splitlines()]
    lines += [f"{key} = {_value(value)}" for key, value in plain.items()]
    for name, table in sorted(tables.items(), key=lambda part: (*ORDER, part[0]).index(part[0])):
        if isinstance(table, dict):
            lines += ["", *_part(name, table)]
    return "\n".join(lines).strip() + "\n"


def tables_of(config: Any, hint: Any = None) -> Table:
    """A dataclass as a table, its usual settings left out; `kind` where the field could hold another one."""
    told: Table = {"kind": spelled(type(config))} if hint is not None and _several(hint) else {}
    hints = get_type_hints(type(config))
    for each in fields(config):
        value = getattr(config, each.name)
        if not each.init or (value == _default(each) and each.name not in told):
            continue
        told[each.name] = _plain(value, hints[each.name])
    return told


def _default(each: Field[Any]) -> Any:
    if each.default is not MISSING:
        return each.default
    return each.default_factory() if each.default_factory is not MISSING else MISSING


def _several(hint: Any) -> bool:
    """Whether a field may hold one of several dataclasses."""
    return sum(hasattr(choice, "__dataclass_fields__") for choice in get_args(hint)) > 1


def _plain(value: Any, hint: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return tables_of(value, hint)
    if isinstance(value, list | tuple):
        return [_plain(each, None) for each in value]
    return "none" if value is None else value


def _part(name: str, table: Mapping[str, Any]) -> list[str]:
    """A table under its heading; tables in it that are long have a heading of their own."""
    long = {key for key, value in table.items() if isinstance(value, dict) and len(f"{key} = {_value(value)}") > WIDE}
    lines = [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items() if key not in long)]
    for key in table:
        if key in long:
            lines += ["", *_part(f"{name}.{key}", table[key])]
    return lines


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {_value(each)}" for key, each in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _float(value: float) -> str:
    short = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return short if float(short) == value and abs(value) < 1e-2 and value else repr(value)
