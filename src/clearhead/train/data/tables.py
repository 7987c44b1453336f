"""Data through the `datasets` library: Parquet, folders that it saved, and the hub. Memory-mapped, read in row ranges.

The library is an extra: `pip install 'clearhead[train]'`. It is imported when it is first asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clearhead.errors import MissingDependencyError, TrainingError
from clearhead.train.data import files
from clearhead.train.data.rows import Found, Piece, Skipped

ROWS = 2000
"""Rows of a piece."""


@dataclass(frozen=True, kw_only=True)
class Parquet:
    """Parquet files, or folders of them."""

    paths: tuple[str, ...]

    def files(self) -> tuple[Path, ...]:
        """The files, in their order."""
        return files.find(self.paths, (".parquet",))

    def identity(self) -> Mapping[str, Any]:
        """The choice as plain data."""
        return {"kind": "Parquet"}

    @property
    def called(self) -> str:
        """What complaints call it."""
        return ", ".join(self.paths)

    def open(self) -> Opened:
        """Map the files into memory."""
        names = [str(path) for path in self.files()]
        load = library().load_dataset
        with _translated(self.called):
            return Opened(load("parquet", data_files=names, split="train"), self.called)

    def stream(self) -> Any:
        """The same as the library's IterableDataset, which copies nothing."""
        names = [str(path) for path in self.files()]
        load = library().load_dataset
        with _translated(self.called):
            return load("parquet", data_files=names, split="train", streaming=True)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset of Hugging Face's: a folder that `save_to_disk` wrote, a folder of data files, or a name on the hub.

    split: the part that is read. config: the hub's name for one of several datasets under one name. revision: which
    version; without one the hub's newest, so name one where a run is to be repeated. Columns that are classes are given
    by their names.
    """

    name: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None

    @property
    def called(self) -> str:
        """What complaints call it."""
        return self.name

    def files(self) -> tuple[Path, ...]:
        """The files of a folder; none for the hub, which numbers its contents itself."""
        folder = Path(self.name).expanduser()
        return tuple(sorted(each for each in folder.rglob("*") if each.is_file())) if folder.is_dir() else ()

    def identity(self) -> Mapping[str, Any]:
        """The choice as plain data, and what the library calls the data that it has."""
        told = {"kind": "Dataset", **asdict(self)}
        if Path(self.name).expanduser().is_dir():
            del told["name"]
            return told
        return {**told, "fingerprint": self.open().fingerprint}

    def open(self) -> Opened:
        """Load it, from the hub where it is no folder."""
        there = library()
        folder = Path(self.name).expanduser()
        with _translated(self.name):
            if folder.is_dir() and any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
                loaded = there.load_from_disk(str(folder))
                if hasattr(loaded, "keys"):
                    if self.split not in loaded:
                        raise TrainingError(f"{self.name} has no split {self.split!r}; it has {', '.join(loaded)}.")
                    loaded = loaded[self.split]
            else:
                name = str(folder) if folder.is_dir() else self.name
                loaded = there.load_dataset(name, self.config, split=self.split, revision=self.revision)
        return Opened(loaded, self.name)

    def stream(self) -> Any:
        """The same as the library's IterableDataset, which reads the hub as it goes and stores nothing."""
        there = library()
        folder = Path(self.name).expanduser()
        with _translated(self.name):
            if folder.is_dir() and any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
                return self.open().table.to_iterable_dataset()
            name = str(folder) if folder.is_dir() else self.name
            return there.load_dataset(name, self.config, split=self.split, revision=self.revision, streaming=True)


class Opened:
    """A dataset in memory-mapped tables. It is pickled as the names of its files."""

    def __init__(self, table: Any, name: str) -> None:
        self.table, self.name = table, name
        self._classes = {
            column: tuple(feature.names) for column, feature in table.features.items() if hasattr(feature, "names")
        }

    @property
    def fingerprint(self) -> str:
        """The library's own hash of the data and of what was done to it."""
        return str(self.table._fingerprint)

    def pieces(self) -> list[Piece]:
        """Ranges of 2,000 rows."""
        rows = len(self.table)
        each = (self.table.data.nbytes // rows if rows else 0) * ROWS
        return [Piece(self.name, at, min(at + ROWS, rows), each) for at in range(0, rows, ROWS)]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """Each row; a class is its name."""
        for at in range(piece.start, piece.stop):
            yield Found(named(self.table[at], self._classes), self.name, at, False)


def named(row: Mapping[str, Any], classes: Mapping[str, tuple[str, ...]]) -> Mapping[str, Any]:
    """The row with the names of its classes in the place of their numbers; −1, which the hub writes for none, stays."""
    if not classes:
        return row
    known = {
        column: names[row[column]]
        for column, names in classes.items()
        if isinstance(row.get(column), int) and 0 <= row[column] < len(names)
    }
    return {**row, **known}


def library() -> Any:
    """The `datasets` module. Raises MissingDependencyError where it is not installed."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        import datasets
    except ModuleNotFoundError as missing:
        raise MissingDependencyError(
            "Parquet and datasets of Hugging Face's need the datasets library: pip install 'clearhead[train]'"
        ) from missing
    return datasets


class _translated:
    """The library's errors, of many kinds, in one line of ours."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, TrainingError | MissingDependencyError):
            root = error.__cause__ or error
            reason = " ".join(str(root).split())[:300] or type(root).__name__
            raise TrainingError(f"the dataset {self._name} cannot be read: {reason}") from error
