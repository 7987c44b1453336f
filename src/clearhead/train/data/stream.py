"""Streams: data that is read as it comes, tokenised on the way, and never stored; for what is too large to keep.

Where a stream stands is no function of the step, so it is saved: which piece, which row of it, the ids begun and not
yet given, and the rows that wait to be shuffled. `state_dict()` is plain data, and after `load_state_dict` the stream
goes on with exactly the rows that it would have given; a state of other data or settings is refused.

Memory is bounded: one piece (8 MiB of text), `shuffle` rows, one row more. Every process reads the whole stream and
takes its share of each batch, so that any number of them sees the same batches; it costs each of them the tokenising.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.errors import ClearheadError, ConfigError, TrainingError
from clearhead.text import Tokenizer
from clearhead.train.data.cache import dtype_of
from clearhead.train.data.encoders import Encoder, identity
from clearhead.train.data.order import random
from clearhead.train.data.packing import Blocks, Documents, Fields, Packing
from clearhead.train.data.rows import Found, Reader, Skipped, Source
from clearhead.train.data.tables import Dataset, Parquet, named

State = dict[str, Any]


class Stream:
    """Rows without end: epoch after epoch, in pieces whose order is drawn for each, through a buffer that shuffles.

    packing: Documents, or Blocks. shuffle: how many rows wait in the buffer; 0 keeps the order of the data. vocab_size,
    target_vocab_size: the model's, where ids should be below it; of what is written, where that has another. notes:
    what was left out or cut so far.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        encoder: Encoder,
        *,
        packing: Packing | None = None,
        ahead: int = 0,
        shuffle: int = 1000,
        seed: int = 0,
        vocab_size: int | None = None,
        target_vocab_size: int | None = None,
    ) -> None:
        packing = packing if packing is not None else Documents()
        if not isinstance(packing, Documents | Blocks):
            raise ConfigError(f"a stream cannot be packed as {type(packing).__name__}; choose Documents or Blocks.")
        if shuffle < 0:
            raise ConfigError(f"shuffle={shuffle} should be a number of rows, 0 or more.")
        self._tokenizer, self._encoder = tokenizer, encoder
        self._packing, self._ahead, self._shuffle, self._seed = packing, ahead, shuffle, seed
        size = max(tokenizer.vocab_size, tokenizer.target.vocab_size)
        self._dtypes = {name: dtype_of(kind, size) for name, kind in encoder.fields.items()}
        below = vocab_size if vocab_size is not None else size
        written = target_vocab_size if target_vocab_size is not None else below
        self._below = {
            name: written if name == "target" else below for name, kind in encoder.fields.items() if kind == "ids"
        }
        self._walk: _Walk | _LibraryWalk = (
            _LibraryWalk(source) if isinstance(source, Dataset | Parquet) else _Walk(source.open(), seed, bool(shuffle))
        )
        self.fingerprint = _hash(
            {
                "source": asdict(source) if isinstance(source, Dataset) and not source.files() else source.identity(),
                "pieces": self._walk.pieces,
                "tokenizer": tokenizer.backend.to_str(),
                "encoder": identity(encoder),
                "packing": [type(packing).__name__, asdict(packing), ahead],
                "shuffle": [shuffle, seed],
            }
        )
        """The hash of what the stream is made from: the names and sizes of the files, the tokenizer, the settings."""
        self._begun: list[dict[str, np.ndarray]] = []  # documents read, of which Blocks has not given all
        self._buffer: list[dict[str, np.ndarray]] = []
        self._given = 0
        self.notes: Counter[str] = Counter()

    def take(self, n: int) -> list[Fields]:
        """The next `n` rows."""
        return [self._next() for _ in range(n)]

    def state_dict(self) -> State:
        """Where it stands, as plain data."""
        return {
            "of": self.fingerprint,
            "walk": self._walk.state(),
            "begun": [_told(fields) for fields in self._begun],
            "buffer": [_told(fields) for fields in self._buffer],
            "given": self._given,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises TrainingError for what is no state, or one of other data or settings."""
        try:
            if state["of"] != self.fingerprint:
                raise TrainingError(
                    "the stream is not the one that was saved: its files, tokenizer or settings (source, encoder, "
                    "packing, shuffle, seed) have changed; go on with those of then."
                )
            self._walk.load(state["walk"])
            self._begun = [_read(fields) for fields in state["begun"]]
            self._buffer = [_read(fields) for fields in state["buffer"]]
            self._given = int(state["given"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"this is no state of a stream: {error!r}.") from None

    def _next(self) -> dict[str, np.ndarray]:
        """A row of the buffer, whose place the next one takes."""
        while len(self._buffer) <= self._shuffle:
            self._buffer.append(self._row())
        at = int(random(self._seed, 4, self._given).integers(len(self._buffer))) if self._shuffle else 0
        self._given += 1
        row = self._buffer[at]
        self._buffer[at] = self._buffer[-1]
        self._buffer.pop()
        return row

    def _row(self) -> dict[str, np.ndarray]:
        """The next row in the order of the data."""
        if isinstance(self._packing, Documents):
            return self._document()
        wanted = self._packing.length + self._ahead
        while sum(len(each["ids"]) for each in self._begun) < wanted:
            self._begun.append(self._document())
        taken: list[dict[str, np.ndarray]] = []
        left, sizes = wanted, []
        for document in self._begun:
            part = {name: values[:left] for name, values in document.items()}
            taken.append(part)
            sizes.append(len(part["ids"]))
            left -= sizes[-1]
            if not left:
                break
        row = {name: np.concatenate([part[name] for part in taken]) for name in taken[0]}
        row["documents"] = np.repeat(np.arange(len(sizes)), sizes)
        self._drop(self._packing.length)  # the ids ahead are the next row's first
        return row

    def _drop(self, n: int) -> None:
        while n:
            size = len(self._begun[0]["ids"])
            if size <= n:
                self._begun.pop(0)
            else:
                self._begun[0] = {name: values[n:] for name, values in self._begun[0].items()}
            n -= min(size, n)

    def _document(self) -> dict[str, np.ndarray]:
        """The next row of the data that has ids."""
        while True:
            found = self._walk.next()
            if isinstance(found, Skipped):
                self.notes[found.why] += 1
                continue
            try:
                given = self._encoder.encode(found.row, self._tokenizer, self.notes, first=found.first, last=found.last)
            except ClearheadError as error:
                raise found.refused(error) from error
            fields = {name: np.asarray(values, dtype=self._dtypes[name]) for name, values in given.items()}
            if not len(fields["ids"]):
                continue
            for name, below in self._below.items():
                largest = int(fields[name].max(initial=0))
                if largest >= below:
                    raise TrainingError(
                        f"{found.where()} has the id {largest}, and the model knows ids below {below}: tokenizer and "
                        "model do not belong together; give the model's own tokenizer."
                    )
            self._walk.has_rows = True
            return fields


def _told(fields: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Each field's type and its bytes: a thousand rows wait in the buffer, and as numbers they would be megabytes."""
    return {name: [each.dtype.str, base64.b64encode(each.tobytes()).decode()] for name, each in fields.items()}


def _read(told: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(base64.b64decode(content, validate=True), np.dtype(kind))
        for name, (kind, content) in told.items()
    }


def _hash(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


class _Walk:
    """Through the pieces of a reader, again and again. It stands at (epoch, piece, row of the piece)."""

    def __init__(self, reader: Reader, seed: int, shuffled: bool) -> None:
        self._reader, self._seed, self._shuffled = reader, seed, shuffled
        self._pieces = reader.pieces()
        self.pieces = [(Path(piece.path).name, piece.start, piece.stop, piece.size) for piece in self._pieces]
        self.has_rows = False
        self._at = (0, 0, 0)
        self._rows: Iterator[Found | Skipped] | None = None

    def next(self) -> Found | Skipped:
        """The next row. Raises TrainingError where the data has been read through and had none."""
        while True:
            epoch, number, row = self._at
            if number >= len(self._pieces):
                if not self.has_rows:
                    raise TrainingError("the data was read through, and there was nothing to learn from.")
                self._at = (epoch + 1, 0, 0)
                continue
            if self._rows is None:
                self._rows = self._reader.read(self._pieces[self._order(epoch)[number]])
                for _ in range(row):
                    next(self._rows)
            found = next(self._rows, None)
            if found is not None:
                self._at = (epoch, number, row + 1)
                return found
            self._rows, self._at = None, (epoch, number + 1, 0)

    def _order(self, epoch: int) -> list[int]:
        """Pieces of one document stay together and in order; else any order."""
        if not self._shuffled:
            return list(range(len(self._pieces)))
        groups: list[list[int]] = []
        for number, piece in enumerate(self._pieces):
            if piece.first or not groups:
                groups.append([])
            groups[-1].append(number)
        order = random(self._seed, 5, epoch).permutation(len(groups))
        return [number for group in order for number in groups[group]]

    def state(self) -> State:
        """Where it stands."""
        return {"epoch": self._at[0], "piece": self._at[1], "row": self._at[2], "has_rows": self.has_rows}

    def load(self, state: Mapping[str, Any]) -> None:
        """Stand there."""
        self._at = (int(state["epoch"]), int(state["piece"]), int(state["row"]))
        self.has_rows, self._rows = bool(state["has_rows"]), None


class _LibraryWalk:
    """Through an IterableDataset of the `datasets` library, which knows where it stands; a new one for each epoch."""

    def __init__(self, source: Dataset | Parquet) -> None:
        self._source = source
        self.pieces = [(path.name, path.stat().st_size) for path in source.files()]
        self._data = source.stream()
        features = self._data.features or {}
        self._classes = {column: tuple(each.names) for column, each in features.items() if hasattr(each, "names")}
        self._rows: Iterator[Any] | None = None
        self._epoch, self._row = 0, 0
        self.has_rows = False

    def next(self) -> Found | Skipped:
        """The next row."""
        name = self._source.called
        while True:
            if self._rows is None:
                self._rows = iter(self._data)
            try:
                row = next(self._rows, None)
            except Exception as error:  # the library's, of any kind
                reason = " ".join(str(error.__cause__ or error).split())[:300]
                raise TrainingError(f"the dataset {name} cannot be read at row {self._row}: {reason}") from error
            if row is not None:
                self._row += 1
                return Found(named(row, self._classes), name, self._row - 1, False)
            if not self.has_rows:
                raise TrainingError(f"the dataset {name} was read through, and there was nothing to learn from.")
            self._epoch, self._row, self._rows, self._data = self._epoch + 1, 0, None, self._source.stream()

    def state(self) -> State:
        """Where it stands, in the library's words."""
        return {"epoch": self._epoch, "row": self._row, "library": self._data.state_dict(), "has_rows": self.has_rows}

    def load(self, state: Mapping[str, Any]) -> None:
        """Stand there."""
        self._epoch, self._row, self.has_rows = int(state["epoch"]), int(state["row"]), bool(state["has_rows"])
        self._rows, self._data = None, self._source.stream()
        self._data.load_state_dict(state["library"])
