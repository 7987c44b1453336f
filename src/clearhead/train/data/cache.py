"""The cache: rows of numbers on disk, mapped into memory. Text is tokenised once; a run reads ids as if from an array.

    FOLDER/ids.bin           the numbers of all rows, one after another: uint16 where the vocabulary allows, else uint32
           ids.offsets.bin   where each row begins, and where the last one ends (int64)
           …                 two files for each field that the encoder gives
           manifest.json     the fingerprint of what it was made from; the size and SHA-256 of each file; written last

It is written into a neighbour and renamed, so it is whole or not there. Opening it checks every size and every hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int, Shaped

from clearhead.errors import TrainingError
from clearhead.train.data.encoders import Kind

MANIFEST = "manifest.json"
FORMAT = 1
_DTYPES: Mapping[str, str] = {"numbers": "<i4", "flags": "|u1", "floats": "<f4"}
_BLOCK = 1 << 22

Fields = Mapping[str, Shaped[np.ndarray, " _"]]
"""A row: names and arrays of numbers."""


def dtype_of(kind: Kind, vocab_size: int) -> np.dtype[Any]:
    """The smallest type that holds a field."""
    if kind == "ids":
        return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    return np.dtype(_DTYPES[kind])


@dataclass(frozen=True, eq=False)
class Column:
    """A field of all rows: `numbers[offsets[r]:offsets[r + 1]]` is row r."""

    numbers: Shaped[np.ndarray, " n"]
    offsets: Int[np.ndarray, " rows_and_one"]

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """How many numbers each row has."""
        return np.diff(self.offsets)


class Cache:
    """A cache on disk, open for reading. `len(cache)` rows; `cache[r]` is one of them, by field."""

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        """Open it. verify: read it all once and compare the hashes. Raises TrainingError where it is not whole."""
        self.folder = folder
        self.manifest = _manifest(folder)
        self.columns: dict[str, Column] = {}
        try:
            self._rows = int(self.manifest["rows"])
            for name, told in self.manifest["fields"].items():
                files = folder / f"{name}.bin", folder / f"{name}.offsets.bin"
                for file, about in zip(files, (told["numbers"], told["offsets"]), strict=True):
                    _check(file, int(about["bytes"]), str(about["sha256"]), verify)
                numbers, offsets = _mapped(files[0], np.dtype(told["dtype"])), _mapped(files[1], np.dtype("<i8"))
                if len(offsets) != self._rows + 1 or offsets[-1] != len(numbers):
                    raise TrainingError(f"{files[1]} does not fit the {self._rows} rows of its manifest.")
                self.columns[name] = Column(numbers, offsets)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TrainingError(f"{folder / MANIFEST} is damaged: {error!r}.") from None

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Fields:
        return {
            name: column.numbers[column.offsets[row] : column.offsets[row + 1]] for name, column in self.columns.items()
        }

    def __iter__(self) -> Iterator[Fields]:
        return (self[row] for row in range(len(self)))

    @property
    def fingerprint(self) -> str:
        """The hash of what it was made from: files, tokenizer, settings."""
        return str(self.manifest["fingerprint"])

    @property
    def notes(self) -> Mapping[str, int]:
        """What was left out or cut, in words, and how often."""
        return dict(self.manifest["notes"])

    def n_tokens(self, name: str = "ids") -> int:
        """How many numbers a field has in all."""
        return len(self.columns[name].numbers)

    def check_fits(self, vocab_size: int, target_vocab_size: int | None = None) -> None:
        """Raise TrainingError where an id is too large for a model of this vocabulary: it has another tokenizer."""
        for name, told in self.manifest["fields"].items():
            size = vocab_size if name != "target" or target_vocab_size is None else target_vocab_size
            if told["kind"] == "ids" and told["largest"] >= size:
                raise TrainingError(
                    f"the data has the id {told['largest']}, and the model knows ids below {size}: tokenizer and model "
                    "do not belong together; give the model's own tokenizer, or a model of its "
                    f"{self.manifest['vocab_size']} tokens."
                )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        told = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise TrainingError(f"{folder} is no cache: it has no {MANIFEST}.") from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} is damaged: {error}.") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise TrainingError(f"{path} is of another format; delete the folder, and it is made again.")
    return told


def _check(file: Path, size: int, digest: str, verify: bool) -> None:
    try:
        there = file.stat().st_size
        if there != size:
            raise TrainingError(f"{file} has {there:,} bytes, and its manifest says {size:,}.")
        if verify:
            with open(file, "rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != digest:
                    raise TrainingError(f"{file} is not what was written: its hash differs from its manifest's.")
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror or error}.") from None


def _mapped(file: Path, dtype: np.dtype[Any]) -> Shaped[np.ndarray, " n"]:
    if not file.stat().st_size:  # nothing can be mapped
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(file, dtype=dtype, mode="r"))


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Part:
    """What became of one piece of the data: files of numbers and lengths by field, and what there is to say of them.

    joins: its first row goes on with the last row of the part before.
    """

    prefix: Path
    rows: int
    joins: bool
    largest: Mapping[str, int]
    notes: Mapping[str, int]

    def numbers(self, field: str) -> Path:
        """The file of all rows' numbers."""
        return self.prefix.with_name(f"{self.prefix.name}.{field}.part")

    def lengths(self, field: str) -> Path:
        """The file of the rows' lengths."""
        return self.prefix.with_name(f"{self.prefix.name}.{field}.lengths.part")


class Writer:
    """Parts, in order, to one cache: appended as they come, so only one is ever held."""

    def __init__(self, folder: Path, fields: Mapping[str, Kind], vocab_size: int) -> None:
        self._folder, self._kinds, self._vocab_size = folder, fields, vocab_size
        self._files: dict[str, tuple[IO[bytes], IO[bytes]]] = {}
        self._hashes = {name: (hashlib.sha256(), hashlib.sha256()) for name in fields}
        self._ends = dict.fromkeys(fields, 0)
        self._open_row = False
        self.rows = 0
        self.notes: Counter[str] = Counter()
        self.largest = dict.fromkeys(fields, -1)
        for name in fields:
            self._files[name] = (
                open(folder / f"{name}.bin", "wb"),  # noqa: SIM115
                open(folder / f"{name}.offsets.bin", "wb"),  # noqa: SIM115
            )

    def append(self, part: Part) -> None:
        """Add the rows of a part, and delete its files."""
        joins = part.joins and self._open_row
        for name in self._kinds:
            lengths = np.fromfile(part.lengths(name), dtype="<i8")
            ends = self._ends[name] + np.cumsum(lengths)
            begins = ends - lengths  # a row's offset is written when it begins
            if joins:
                begins = begins[1:]
            self._write(name, 1, begins.astype("<i8").tobytes())
            with open(part.numbers(name), "rb") as handle:
                while block := handle.read(_BLOCK):
                    self._write(name, 0, block)
            self._ends[name] = int(ends[-1]) if len(ends) else self._ends[name]
            part.numbers(name).unlink()
            part.lengths(name).unlink()
        self.rows += part.rows - joins
        self._open_row = self._open_row or part.rows > 0
        self.notes.update(part.notes)
        for name, largest in part.largest.items():
            self.largest[name] = max(self.largest[name], largest)

    def _write(self, name: str, which: int, content: bytes) -> None:
        self._files[name][which].write(content)
        self._hashes[name][which].update(content)

    def finish(self, told: Mapping[str, Any]) -> None:
        """Write the ends, sync all, and the manifest last."""
        fields = {}
        for name, kind in self._kinds.items():
            self._write(name, 1, np.array([self._ends[name]], dtype="<i8").tobytes())
            about = []
            for handle, hashed in zip(self._files[name], self._hashes[name], strict=True):
                handle.flush()
                os.fsync(handle.fileno())
                about.append({"bytes": handle.tell(), "sha256": hashed.hexdigest()})
            fields[name] = {
                "kind": kind,
                "dtype": dtype_of(kind, self._vocab_size).str,
                "largest": self.largest[name],
                "numbers": about[0],
                "offsets": about[1],
            }
        manifest = {
            "format": FORMAT,
            "rows": self.rows,
            "vocab_size": self._vocab_size,
            "fields": fields,
            "notes": dict(self.notes),
            **told,
        }
        with open(self._folder / MANIFEST, "w", encoding="utf-8") as text:
            json.dump(manifest, text, indent=1, ensure_ascii=False)
            text.flush()
            os.fsync(text.fileno())

    def close(self) -> None:
        """Let go of the files. What a full disk would not take has been said by then."""
        for pair in self._files.values():
            for handle in pair:
                with suppress(OSError):
                    handle.close()
