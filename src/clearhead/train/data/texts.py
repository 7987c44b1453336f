"""Readers of texts: a file a document, a line a document, lines in parallel. What all readers of files share is here.

They read with the standard library, by ranges of bytes: exact about lines and bytes, bounded in memory, in parallel,
and without a copy of the data on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, ClassVar

from clearhead.errors import ConfigError, TrainingError
from clearhead.train.data import files
from clearhead.train.data.files import LONGEST_LINE, Line, TooLong
from clearhead.train.data.rows import Found, Piece, Row, Skipped

BLANK = "blank lines"
EMPTY = "empty files"
LINES = 10_000
"""Pairs of lines that one process reads at a time."""


@dataclass(frozen=True, kw_only=True)
class Files(ABC):
    """What readers of files share. paths: files, folders (searched for the usual endings) or patterns such as `*.txt`;
    `.gz`, `.xz` and `.bz2` are unpacked. longest: bytes of a line; too_long: what becomes of a longer one."""

    paths: tuple[str, ...]
    encoding: str = "utf-8"
    longest: int = LONGEST_LINE
    too_long: TooLong = "refuse"

    def __post_init__(self) -> None:
        files.check_encoding(self.encoding)
        if self.longest < 1:
            raise ConfigError(f"longest={self.longest} should be a number of bytes, 1 or more.")
        if self.too_long not in ("refuse", "skip", "cut"):
            raise ConfigError(f"too_long={self.too_long!r} is not a choice; choose 'refuse', 'skip' or 'cut'.")
        if self.too_long == "cut" and not self._may_cut:
            raise ConfigError(f"a line of {type(self).__name__} cannot be cut; choose too_long = 'skip' or 'refuse'.")

    _may_cut: ClassVar[bool] = True
    _suffixes: ClassVar[tuple[str, ...]] = (".txt",)

    def files(self) -> tuple[Path, ...]:
        """The files, in their order."""
        return files.find(self.paths, self._suffixes)

    def open(self) -> Files:
        """Nothing to make ready but to look for the files."""
        self.files()
        return self

    def pieces(self) -> list[Piece]:
        """A file a piece, where nothing shows at a byte that a row begins there."""
        return [Piece(str(path), 0, -1, path.stat().st_size) for path in self.files()]

    @abstractmethod
    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """The rows of one piece. Raises TrainingError for what is not as it should be."""

    def identity(self) -> Mapping[str, Any]:
        """The choice as plain data, without the paths: a moved file is the same data."""
        return {"kind": type(self).__name__, **{key: value for key, value in asdict(self).items() if key != "paths"}}

    def _text(self, line: Line, path: Path) -> str | Skipped:
        """The text of a line, or why it is left out."""
        if line.length > self.longest:
            if self.too_long == "refuse":
                more = ", or 'cut' to read its beginning" if self._may_cut else ""
                raise TrainingError(
                    f"{path}, line {files.line_number(path, line.at)}: {line.length:,} bytes, and longest = "
                    f"{self.longest:,} are allowed; give too_long = 'skip' to leave such lines out{more}."
                )
            if self.too_long == "skip":
                return Skipped(f"lines of more than {self.longest:,} bytes")
        cut = line.length > len(line.content)
        return files.decode(line.content, path, line.at, self.encoding, cut=cut)


@dataclass(frozen=True, kw_only=True)
class TextFiles(Files):
    """Each file is one document: a book, a play. One of more than 8 MiB is read in parts, which are cut where a line
    ends and joined again as ids."""

    def pieces(self) -> list[Piece]:
        """Ranges of about 8 MiB."""
        found = []
        for path in self.files():
            size = path.stat().st_size
            if files.is_packed(path) or size <= files.PIECE:
                found.append(Piece(str(path), 0, -1, size))
                continue
            cuts = sorted({0, size, *(files.seam(path, near) for near in range(files.PIECE, size, files.PIECE))})
            for start, stop in pairwise(cuts):
                found.append(Piece(str(path), start, stop, stop - start, start == 0, stop == size))
        return found

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """One row: the text, or the part of it."""
        path = Path(piece.path)
        with files.opened(path) as handle:
            handle.seek(piece.start)
            content = handle.read() if piece.stop < 0 else handle.read(piece.stop - piece.start)
        text = files.decode(content, path, piece.start, self.encoding)
        if text.strip() or not (piece.first and piece.last):
            yield Found({"text": text}, piece.path, piece.start, True, piece.first, piece.last)
        else:
            yield Skipped(EMPTY)


@dataclass(frozen=True, kw_only=True)
class Lines(Files):
    """What readers of lines share: pieces of bytes, and a row for each line."""

    def pieces(self) -> list[Piece]:
        """Ranges of 8 MiB; a line belongs to the range in which it begins."""
        return [
            Piece(str(path), start, stop, min(stop - start, path.stat().st_size))
            for path in self.files()
            for start, stop in files.spans(path) or [(0, 0)]
        ]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """A row for each line."""
        path = Path(piece.path)
        if not piece.stop:
            yield Skipped(EMPTY)
        for line in files.lines(path, piece.start, piece.stop, longest=self.longest):
            text = self._text(line, path)
            if isinstance(text, Skipped):
                yield text
            elif not text.strip():
                yield Skipped(BLANK)
            else:
                yield Found(self._row(text, path, line.at), piece.path, line.at)

    def _row(self, text: str, path: Path, at: int) -> Row:
        return {"text": text}


@dataclass(frozen=True, kw_only=True)
class TextLines(Lines):
    """Each line is one document: a verse, a sentence. Blank lines are none."""


@dataclass(frozen=True, kw_only=True)
class ParallelLines:
    """Two files, line by line each other's translation. Rows are `{"source": …, "target": …}`; a pair with a blank side
    is left out."""

    source: str
    target: str
    encoding: str = "utf-8"
    longest: int = LONGEST_LINE

    def __post_init__(self) -> None:
        files.check_encoding(self.encoding)

    def files(self) -> tuple[Path, ...]:
        """The two files."""
        return (*files.find((self.source,), (".txt",)), *files.find((self.target,), (".txt",)))

    def identity(self) -> Mapping[str, Any]:
        """The choice as plain data."""
        return {"kind": "ParallelLines", "encoding": self.encoding, "longest": self.longest}

    def open(self) -> Pairs:
        """Count the lines of both. Raises TrainingError where one file has more lines than the other."""
        sides = self.files()
        if len(sides) != 2:
            raise TrainingError(f"{self.source} and {self.target} should be one file each; give the files.")
        counts, starts = [0, 0], ([], [])  # type: tuple[list[int], tuple[list[int], list[int]]]
        for side, path in enumerate(sides):
            for line in files.lines(path, longest=self.longest):
                if counts[side] % LINES == 0:
                    starts[side].append(line.at)
                counts[side] += 1
        if counts[0] != counts[1]:
            raise TrainingError(
                f"{sides[0]} has {counts[0]:,} lines, and {sides[1]} has {counts[1]:,}; "
                "they should have a line for a line."
            )
        readers = [TextLines(paths=(str(path),), encoding=self.encoding, longest=self.longest) for path in sides]
        return Pairs((readers[0], readers[1]), tuple(zip(*starts, strict=True)), LINES)


@dataclass(frozen=True)
class Pairs:
    """Two files whose lines are counted. starts: the bytes at which each piece of so many lines begins in both."""

    readers: tuple[TextLines, TextLines]
    starts: tuple[tuple[int, int], ...]
    lines: int

    @property
    def _sides(self) -> list[Path]:
        return [Path(reader.paths[0]) for reader in self.readers]

    def pieces(self) -> list[Piece]:
        """Ranges of lines."""
        size = sum(path.stat().st_size for path in self._sides) // max(len(self.starts), 1)
        return [Piece(self.readers[0].paths[0], at, at + 1, size) for at in range(len(self.starts))]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """A row for each pair of lines."""
        sides = self._sides
        streams = [
            islice(files.lines(path, start, longest=reader.longest), self.lines)
            for reader, path, start in zip(self.readers, sides, self.starts[piece.start], strict=True)
        ]
        for pair in zip(*streams, strict=True):
            texts = [reader._text(line, path) for reader, line, path in zip(self.readers, pair, sides, strict=True)]
            assert isinstance(texts[0], str) and isinstance(texts[1], str)
            if texts[0].strip() and texts[1].strip():
                yield Found({"source": texts[0], "target": texts[1]}, str(sides[0]), pair[0].at)
            else:
                yield Skipped("pairs with a blank side")
