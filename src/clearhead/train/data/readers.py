"""Readers: from files to rows. `texts.py` reads texts, `columns.py` rows with columns; here are rows that are given.

All are read with the standard library, in parallel, and without a copy of the data on disk: texts and JSON lines by
ranges of bytes, tables and tagged words a file at a time. Parquet and Hugging Face's datasets go through `tables.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clearhead.train.data.columns import Conll, JsonLines, Table
from clearhead.train.data.rows import Found, Piece, Row, Skipped, ranges
from clearhead.train.data.texts import ParallelLines, TextFiles, TextLines

__all__ = ["Conll", "GivenRows", "JsonLines", "ParallelLines", "Table", "TextFiles", "TextLines"]


class GivenRows:
    """Rows that a program made: `GivenRows([{"text": "…"}, …])`. They are the data, and there is no file."""

    def __init__(self, rows: Sequence[Row], name: str = "the rows given") -> None:
        self.rows, self.name = tuple(rows), name

    def open(self) -> GivenRows:
        """They are there."""
        return self

    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def identity(self) -> Mapping[str, Any]:
        """A hash of what they say."""
        told = hashlib.sha256()
        for row in self.rows:
            told.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
        return {"kind": "GivenRows", "rows": told.hexdigest()}

    def pieces(self) -> list[Piece]:
        """Ranges of 2,000 rows."""
        return ranges(self.name, len(self.rows), each=100)

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """Each row."""
        for at in range(piece.start, piece.stop):
            yield Found(self.rows[at], self.name, at, False)
