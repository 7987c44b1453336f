"""Rows: what every reader gives, whatever the file. A row is names and values; where it came from travels with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from clearhead.train.data.files import line_number

Row = Mapping[str, Any]
"""One example as its file has it: `{"text": "…", "label": "positive"}`."""


class Found(NamedTuple):
    """A row, and where it is: in the file `path`, at byte `at` (or row `at`, where `in_bytes` is False).

    first, last: a document that is too long for one piece comes in several rows; these mark its two ends.
    """

    row: Row
    path: str
    at: int
    in_bytes: bool = True
    first: bool = True
    last: bool = True

    def where(self) -> str:
        """The place in words: `train.tsv, line 17`."""
        number = line_number(Path(self.path), self.at) if self.in_bytes else self.at
        return f"{self.path}, {'line' if self.in_bytes else 'row'} {number}"


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
