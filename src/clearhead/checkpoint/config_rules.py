"""Config rules. A table of rows maps a foreign config.json to our ModelConfig, and each row reads both ways.

    whole("n_layer", "decoder.n_layers", default=12)               a number that means the same
    choice("hidden_act", ACTIVATIONS, "…activation", default="…")  a name that we spell otherwise
    Convert(keys, places, read, write)                             whatever needs a sentence of Python
    Only("is_decoder", (False,), "…")                              the one value that we can run; others are refused
    Ignored("summary_*", "…")                                      a key that does not change what the model computes

A key that no row claims is refused by name. `default` is what a missing key means *in that family*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar, runtime_checkable

from clearhead.checkpoint.places import NOWHERE, Places, get
from clearhead.errors import CheckpointError, UnknownKeyError
from clearhead.model.config import ModelConfig
from clearhead.model.config.checks import LARGEST

T = TypeVar("T")


@runtime_checkable
class Evidence(Protocol):
    """What the weights say where the config is silent: which tensors there are, and which are the same."""

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds the tensor (under its name without the family's prefix)."""

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same numbers."""


@dataclass(frozen=True)
class Foreign:
    """A foreign config: its keys, read as what they must be; `notes` collects what the reader should know.

    ours: the config that was just written so, when what was written is read for comparison: there are no weights yet
    that `evidence` could ask.
    """

    keys: Mapping[str, Any]
    evidence: Evidence
    where: str = "config.json"
    notes: list[str] = field(default_factory=list)
    ours: ModelConfig | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it stands."""
        return self.keys.get(key, default)

    def bad(self, key: str, what: str) -> CheckpointError:
        """The error for a value that is not what its key asks for."""
        return CheckpointError(f"{self.where}: {key}={shown(self.get(key))} is not {what}; correct the file.")

    def whole(self, key: str, default: int | None = None, *, at_most: int = LARGEST) -> int:
        """A whole number. Raises CheckpointError for anything else, and where it is missing without a default."""
        value = self.optional_whole(key, default, at_most=at_most)
        if value is None:
            if key in self.keys:
                raise self.bad(key, "a whole number")
            raise CheckpointError(f"{self.where} lacks {key}; add it, or use the complete checkpoint.")
        return value

    def optional_whole(self, key: str, default: int | None = None, *, at_most: int = LARGEST) -> int | None:
        """A whole number, or None for null."""
        value = self.get(key, default)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= at_most):
            return value
        raise self.bad(key, f"a whole number up to {at_most:,}")

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.optional_number(key, default)
        if value is None:
            raise self.bad(key, "a number")
        return value

    def optional_number(self, key: str, default: float | None = None) -> float | None:
        """A finite number, or None for null."""
        value = self.get(key, default)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
        raise self.bad(key, "a finite number")

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self.get(key, default)
        if isinstance(value, bool):
            return value
        raise self.bad(key, "true or false")

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self.get(key, default)
        if isinstance(value, str):
            return value
        raise self.bad(key, "a name in quotes")


def shown(value: Any) -> str:
    """A foreign value, short enough for one line of a message."""
    text = repr(value) if not (isinstance(value, int) and abs(value) > 10**30) else "a very large number"
    return text if len(text) <= 60 else text[:57] + "…"


class ConfigRow:
    """One row. keys: the foreign keys that it accounts for. verbatim: a file's own spelling is kept on export."""

    keys: tuple[str, ...]
    verbatim: bool = True

    def claims(self, key: str) -> bool:
        """Whether this row accounts for the key."""
        return key in self.keys

    def read(self, foreign: Foreign) -> Places:
        """The places that the foreign keys fill. Raises CheckpointError for values that cannot be read."""
        raise NotImplementedError

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The foreign keys that say what this config says."""
        raise NotImplementedError

    def respelled(self, written: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
        """What was written of these keys, in the spelling of the original file."""
        return {key: original[key] for key in self.keys if key in original}


@dataclass(frozen=True)
class Convert(ConfigRow):
    """Several keys and several places, with a function for each way."""

    keys: tuple[str, ...]
    reader: Callable[[Foreign], Places]
    writer: Callable[[ModelConfig], dict[str, Any]]
    verbatim: bool = True

    def read(self, foreign: Foreign) -> Places:
        """By the reader."""
        return self.reader(foreign)

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """By the writer."""
        return self.writer(config)


@dataclass(frozen=True)
class Value(ConfigRow):
    """One value in one or more places. `keys` are spellings of one key, the first is the one that we write."""

    keys: tuple[str, ...]
    places: tuple[str, ...]
    reader: Callable[[Foreign, str], Any]
    writer: Callable[[Any], Any] = lambda value: value
    omit_null: bool = False
    verbatim: bool = True

    def read(self, foreign: Foreign) -> Places:
        """The value, at each place. Raises CheckpointError where two spellings disagree."""
        there = [key for key in self.keys if key in foreign.keys] or [self.keys[0]]
        value = self.reader(foreign, there[0])
        for key in there[1:]:
            if self.reader(foreign, key) != value:
                raise CheckpointError(f"{foreign.where}: {there[0]} and {key} disagree; remove the wrong one.")
        return dict.fromkeys(self.places, value)

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The first place's value, where the config has it."""
        value = get(config, self.places[0])
        omitted = value is NOWHERE or (value is None and self.omit_null)
        return {} if omitted else {self.keys[0]: self.writer(value)}


def _spelled(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def whole(key: str | tuple[str, ...], *places: str, default: int | None) -> Value:
    """A whole number."""
    return Value(_spelled(key), places, lambda foreign, name: foreign.whole(name, default))


def optional_whole(
    key: str | tuple[str, ...], *places: str, default: int | None = None, omit_null: bool = False
) -> Value:
    """A whole number or null. omit_null: null is written by leaving the key out."""
    return Value(
        _spelled(key), places, lambda foreign, name: foreign.optional_whole(name, default), omit_null=omit_null
    )


def number(key: str | tuple[str, ...], *places: str, default: float) -> Value:
    """A number."""
    return Value(_spelled(key), places, lambda foreign, name: foreign.number(name, default))


def optional_number(key: str | tuple[str, ...], *places: str, default: float | None = None) -> Value:
    """A number or null."""
    return Value(_spelled(key), places, lambda foreign, name: foreign.optional_number(name, default))


def flag(key: str | tuple[str, ...], *places: str, default: bool) -> Value:
    """true or false."""
    return Value(_spelled(key), places, lambda foreign, name: foreign.flag(name, default))


def choice(key: str | tuple[str, ...], spellings: Mapping[str, T], *places: str, default: str) -> Value:
    """A name out of a list; of several names for one thing, the default is written, else the first."""

    def read(foreign: Foreign, name: str) -> T:
        value = foreign.text(name, default)
        if value not in spellings:
            known = ", ".join(spellings)
            raise UnknownKeyError(f"{foreign.where}: {name}={shown(value)} is not a choice here; we have {known}.")
        return spellings[value]

    def write(value: Any) -> str | None:
        names = [default] if spellings[default] == value else []
        names += [name for name, meaning in spellings.items() if meaning == value]
        return names[0] if names else None

    return Value(_spelled(key), places, read, write)


@dataclass(frozen=True)
class Only(ConfigRow):
    """A key of which we can run these values alone; any other is refused, since it would change the result."""

    key: str
    values: tuple[Any, ...]
    reason: str
    verbatim: bool = True

    @property
    def keys(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one key."""
        return (self.key,)

    def read(self, foreign: Foreign) -> Places:
        """Nothing: the template says it already. Raises UnknownKeyError for another value."""
        value = foreign.get(self.key, self.values[0])
        if not any(value is one or (type(value) is type(one) and value == one) for one in self.values):
            raise UnknownKeyError(f"{foreign.where}: {self.key}={shown(value)} cannot be run: {self.reason}.")
        return {}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """Nothing: a missing key means the value that we run."""
        return {}


@dataclass(frozen=True)
class Ignored(ConfigRow):
    """Keys (a pattern) that do not change what the model computes. `keep`: written back on export."""

    pattern: str
    reason: str
    keep: bool = True
    verbatim: bool = True
    keys: tuple[str, ...] = ()

    def claims(self, key: str) -> bool:
        """Whether the key matches the pattern."""
        return fnmatchcase(key, self.pattern)

    def read(self, foreign: Foreign) -> Places:
        """Nothing."""
        return {}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Nested(ConfigRow):
    """An object within the config, whose keys have rows of their own; one that none claims is refused by name."""

    key: str
    rows: tuple[ConfigRow, ...]

    @property
    def keys(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one key."""
        return (self.key,)

    def read(self, foreign: Foreign) -> Places:
        """What the inner rows read; a missing object is an empty one."""
        says = foreign.get(self.key)
        if says is not None and not isinstance(says, dict):
            raise foreign.bad(self.key, "an object")
        inner = Foreign(says or {}, foreign.evidence, f"{foreign.where}: {self.key}", foreign.notes)
        for key in inner.keys:
            if not any(row.claims(key) for row in self.rows):
                raise UnknownKeyError(f"{inner.where} has the key {key}={shown(inner.get(key))}, which is not known.")
        places: Places = {}
        for row in self.rows:
            places |= row.read(inner)
        return places

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The object, with what the inner rows write."""
        written: dict[str, Any] = {}
        for row in self.rows:
            written |= row.write(config)
        return {self.key: written}

    def respelled(self, written: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
        """The object, with each inner row's own keys as the original had them, and the ignored ones."""
        says = original.get(self.key)
        if not isinstance(says, dict):
            return {}
        inner = dict(written.get(self.key, {}))
        for row in self.rows:
            if row.verbatim:
                inner |= row.respelled(inner, says)
            if isinstance(row, Ignored) and row.keep:
                inner |= {key: value for key, value in says.items() if row.claims(key)}
        return {self.key: inner}
