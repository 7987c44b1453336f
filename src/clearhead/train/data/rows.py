"""Rows: what every reader gives, whatever the file. A row is names and values; where it came from travels with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from clearhead.errors import ClearheadError, TrainingError
from clearhead.train.data.files import line_number

Row = Mapping[str, Any]
"""One example as its file has it: `{"text": "…", "label": "positive"}`."""


class NoColumn(TrainingError):
    """A row has no column of the name that is asked for."""


class Found(NamedTuple):
    """A row, and where it is: in the file `path`, at byte `at`; where `in_bytes` is False, at row `at`, or whatever
    `unit` says.

    first, last: a document that is too long for one piece comes in several rows; these mark its two ends. doubts: what
    may be behind it where a column is missing, and where anything else is wrong with the row.
    """

    row: Row
    path: str
    at: int
    in_bytes: bool = True
    first: bool = True
    last: bool = True
    unit: Literal["line", "row"] = "row"
    doubts: tuple[str, str] = ("", "")

    def where(self) -> str:
        """The place in words: `train.tsv, line 17`."""
        number = line_number(Path(self.path), self.at) if self.in_bytes else self.at
        return f"{self.path}, {'line' if self.in_bytes else self.unit} {number}"

    def refused(self, error: ClearheadError) -> TrainingError:
        """What is said of a row that an encoder cannot use: the place, the reason, and what may be behind it."""
        doubt = self.doubts[not isinstance(error, NoColumn)]
        return TrainingError(f"{self.where()}: {error}{f' {doubt}' if doubt else ''}")


class Skipped(NamedTuple):
    """A row that is left out, and why, in words that can be counted: `blank lines`."""

    why: str


class Piece(NamedTuple):
    """A part of the data that one process reads: a range of bytes or rows of the file `path`, of `size` bytes or so.

    first, last: whether the range begins, and ends, a document.
    """

    path: str
    start: int
    stop: int
    size: int
    first: bool = True
    last: bool = True


def ranges(name: str, rows: int, each: int) -> list[Piece]:
    """Pieces of 2,000 rows, of `each` bytes or so a row."""
    return [Piece(name, at, min(at + 2000, rows), each * min(2000, rows - at)) for at in range(0, rows, 2000)]


@runtime_checkable
class Reader(Protocol):
    """Data that is ready to be read. It can be pickled, so that other processes read pieces of it."""

    def pieces(self) -> list[Piece]:
        """All of the data, in its order."""
        ...

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """The rows of one piece. Raises TrainingError for what is not as it should be."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where data comes from: a choice, written down."""

    def open(self) -> Reader:
        """Make it ready. Raises TrainingError where it is not there."""
        ...

    def files(self) -> tuple[Path, ...]:
        """The files whose contents are the data."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """What, beside the files' contents, decides the rows: plain data."""
        ...
