"""What an encoder is, and what all encoders share: columns, labels, and texts that are too long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any, Literal, Protocol, runtime_checkable

from clearhead.errors import ConfigError, TrainingError
from clearhead.text import Encoding, Tokenizer
from clearhead.train.data.rows import NoColumn, Row

Kind = Literal["ids", "numbers", "flags", "floats"]
"""What a field holds: ids below the vocabulary's size, whole numbers (−100 for none), 0 or 1, or real numbers."""
Fields = Mapping[str, Sequence[int] | Sequence[float]]
"""What a row becomes: names and numbers."""

IGNORED = -100
"""The label of a token from which nothing is learned; as in `train.batch`, which needs torch."""


@runtime_checkable
class Encoder(Protocol):
    """A choice of columns, and what becomes of them."""

    @property
    def fields(self) -> Mapping[str, Kind]:
        """The names of what `encode` gives, the ids that are counted first."""
        ...

    def texts(self, row: Row) -> Iterator[str]:
        """What a tokenizer may learn from the row. Raises TrainingError as `encode` does."""
        ...

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The row in numbers. notes: is told what was cut. first, last: whether the row begins and ends a document.

        Raises TrainingError for a column that is missing, and for values that make no sense.
        """
        ...


def identity(encoder: Any) -> dict[str, Any]:
    """An encoder as plain data."""
    return {"kind": type(encoder).__name__, **asdict(encoder)}


# ── columns, labels, lengths ─────────────────────────────────────────────────────────────────────────────────────────


def value_of(row: Row, column: str) -> Any:
    """The value of a column. Raises NoColumn naming the columns that there are."""
    if column in row:
        return row[column]
    near = get_close_matches(column, row, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, row)) or 'none'}."
    raise NoColumn(f"there is no column {column!r}; {hint}")


def text_of(row: Row, column: str) -> str:
    """The text in a column."""
    value = value_of(row, column)
    if not isinstance(value, str):
        raise TrainingError(f"column {column!r} has {str(value)[:60]}, which is no text.")
    return value


def number_of(value: Any, labels: tuple[str, ...], column: str) -> int:
    """The number of a label: by its name, or else as a number. Raises TrainingError for one outside the set."""
    if str(value) in labels:
        return labels.index(str(value))
    if not isinstance(value, bool) and isinstance(value, int | str):
        text = str(value)
        if text.isdecimal() and int(text) < len(labels):
            return int(text)
    shown = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
    near = get_close_matches(str(value), labels, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise TrainingError(f"the label {str(value)[:60]!r} in column {column!r} is none of {shown}{hint}")


def one_or_two(
    row: Row, first: str, second: str | None, longest: int | None, tokenizer: Tokenizer, notes: Counter[str]
) -> tuple[Sequence[int], Mapping[str, Sequence[int]]]:
    """The ids of a text; or of a pair, with the types of its tokens."""
    text = text_of(row, first)
    if second is None:
        ids = quick_ids(tokenizer, text, longest)
        if ids is not None:
            return ids, {}
    encoding = tokenizer.encode(text, text_of(row, second) if second is not None else None)
    kept = fitting(encoding, longest, notes)
    types = {"types": [encoding.type_ids[at] for at in kept]} if second is not None else {}
    return [encoding.ids[at] for at in kept], types


def quick_ids(tokenizer: Tokenizer, text: str, longest: int | None) -> list[int] | None:
    """The ids of a text that need not be cut, without all else that an encoding has; None where it must be."""
    ids = tokenizer.encode_ids(text)
    return ids if longest is None or len(ids) <= longest else None


def fitting(encoding: Encoding, longest: int | None, notes: Counter[str]) -> Sequence[int]:
    """Which tokens to keep so that there are at most `longest`: all special ones; the longer text loses its end."""
    over = 0 if longest is None else len(encoding) - longest
    if over <= 0:
        return range(len(encoding))
    notes[cut_to(longest)] += 1
    sides = [[at for at, side in enumerate(encoding.sequences) if side == number] for number in (0, 1)]
    while over > 0 and (sides[0] or sides[1]):
        longer, other = sorted(sides, key=len, reverse=True)
        many = min(over, max(len(longer) - len(other), 1))
        del longer[len(longer) - many :]
        over -= many
    kept = {*sides[0], *sides[1]}
    return [at for at, side in enumerate(encoding.sequences) if side is None or at in kept]


def cut_to(longest: int | None) -> str:
    """How cut rows are counted."""
    return f"texts cut to {longest} tokens"


def check_longest(longest: int | None) -> None:
    """Raise ConfigError for a length that holds nothing."""
    if longest is not None and longest < 2:
        raise ConfigError(f"longest={longest} should be a number of tokens, 2 or more.")


def check_labels(labels: tuple[str, ...]) -> None:
    """Raise ConfigError for no labels, or one that is named twice."""
    if not labels:
        raise ConfigError("labels is empty; name at least one, in the order of the model's outputs.")
    if len(set(labels)) != len(labels):
        raise ConfigError(f"labels={labels!r} names one twice.")
