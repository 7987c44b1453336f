"""Readers of text files: a file a document, a line a document, lines in parallel, JSON lines, tables, tagged words.

All but a bare table are read here with the standard library, by ranges of bytes: exact about lines and bytes, bounded
in memory, in parallel, and without a copy of the data on disk. (JSON and CSV are not read through Arrow: it fills keys
that a row does not have with None, which chat templates see, and drops cells that are too many.)
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, ClassVar

from clearhead.errors import ConfigError, TrainingError
from clearhead.train.data import files
from clearhead.train.data.files import LONGEST_LINE, Line, TooLong
from clearhead.train.data.rows import Found, Piece, Row, Skipped

BLANK = "blank lines"
LINES = 10_000
"""Pairs of lines that one process reads at a time."""


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What readers of files share. paths: files, folders (searched for the usual endings) or patterns such as `*.txt`;
    `.gz` is unpacked. longest: bytes of a line; too_long: what becomes of a longer one."""

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
class TextFiles(_Files):
    """Each file is one document: a book, a play. One of more than 8 MiB is read in parts, which are cut where a line
    ends and joined again as ids."""

    def open(self) -> TextFiles:
        """Nothing to make ready but to look for the files."""
        self.files()
        return self

    def pieces(self) -> list[Piece]:
        """Ranges of about 8 MiB."""
        found = []
        for path in self.files():
            size = path.stat().st_size
            if path.suffix == ".gz" or size <= files.PIECE:
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
            yield Skipped("empty files")


@dataclass(frozen=True, kw_only=True)
class _Lines(_Files):
    """What readers of lines share: pieces of bytes, and a row for each line."""

    def open(self) -> _Lines:
        """Nothing to make ready but to look for the files."""
        self.files()
        return self

    def pieces(self) -> list[Piece]:
        """Ranges of 8 MiB; a line belongs to the range in which it begins."""
        return [
            Piece(str(path), start, stop, min(stop - start, path.stat().st_size))
            for path in self.files()
            for start, stop in files.spans(path)
        ]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """A row for each line."""
        path = Path(piece.path)
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
class TextLines(_Lines):
    """Each line is one document: a verse, a sentence. Blank lines are none."""


@dataclass(frozen=True, kw_only=True)
class JsonLines(_Lines):
    """Each line is a JSON object. Rows have the keys that they have: none is made up."""

    _may_cut = False
    _suffixes = (".jsonl", ".ndjson", ".json")

    def _row(self, text: str, path: Path, at: int) -> Row:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            hint = " (one object a line is read, not one long list)" if text.lstrip().startswith("[") else ""
            where = f"{path}, line {files.line_number(path, at)}"
            raise TrainingError(f"{where} is not JSON: {error}{hint}.") from None
        if not isinstance(row, dict):
            where = f"{path}, line {files.line_number(path, at)}"
            raise TrainingError(f"{where} is a {type(row).__name__}; each line should be an object, {{…}}.")
        return row


@dataclass(frozen=True, kw_only=True)
class Table(_Files):
    """CSV, or TSV: a row a line. columns: their names, where the files have no line of names. separator: `,` or a tab
    by the file's name unless given. quotes: cells in double quotes may hold separators and line ends; a tab-separated
    file has none unless told. Every cell is a text: nothing is guessed to be a number, a date or missing."""

    columns: tuple[str, ...] | None = None
    separator: str | None = None
    quotes: bool | None = None

    _may_cut = False
    _suffixes = (".csv", ".tsv")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator is not None and len(self.separator) != 1:
            raise ConfigError(f"separator={self.separator!r} should be one character, such as ',' or a tab.")

    def open(self) -> Table:
        """Nothing to make ready but to look for the files."""
        self.files()
        return self

    def pieces(self) -> list[Piece]:
        """A file a piece: a quoted cell may go on over lines."""
        return [Piece(str(path), 0, -1, path.stat().st_size) for path in self.files()]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """A row for each line; raises TrainingError where it has more or fewer cells than there are columns."""
        path = Path(piece.path)
        separator = self.separator or ("\t" if path.name.removesuffix(".gz").endswith(".tsv") else ",")
        quotes = self.quotes if self.quotes is not None else separator != "\t"
        skipped: list[Skipped] = []
        texts = self._physical(path, skipped)
        rows = csv.reader(
            texts, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, strict=quotes
        )
        names = self.columns
        csv.field_size_limit(max(csv.field_size_limit(), self.longest + 1))
        while True:
            try:
                cells = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                raise TrainingError(
                    f"{path}, line {rows.line_num}: {error}; give quotes = false if none are meant."
                ) from None
            yield from skipped
            skipped.clear()
            if not cells or cells == [""]:
                yield Skipped(BLANK)
            elif names is None:
                names = tuple(cells)
                if len(set(names)) != len(names):
                    raise TrainingError(f"{path}: two columns have one name ({', '.join(names)}); give columns.")
            elif len(cells) != len(names):
                raise TrainingError(
                    f"{path}, line {rows.line_num}: {len(cells)} cells, and there are {len(names)} columns "
                    f"({', '.join(names)}); mend the line, or give separator, columns or quotes."
                )
            else:
                yield Found(dict(zip(names, cells, strict=True)), piece.path, rows.line_num, False)
        yield from skipped

    def _physical(self, path: Path, skipped: list[Skipped]) -> Iterator[str]:
        for line in files.lines(path, longest=self.longest):
            text = self._text(line, path)
            if isinstance(text, Skipped):
                skipped.append(text)
            else:
                yield text + "\n"


@dataclass(frozen=True, kw_only=True)
class Conll(_Files):
    """Words and their tags: a word a line, an empty line after each sentence (Tjong Kim Sang & De Meulder 2003).

    Rows are `{"tokens": […], "tags": […]}`. token, tag: the columns, counted from 0, or from the end as −1. separator:
    any blanks unless given. prefix: taken off each word (WikiANN writes `en:Paris`).
    """

    token: int = 0
    tag: int = -1
    separator: str | None = None
    prefix: str = ""

    _may_cut = False
    _suffixes = (".conll", ".bio", ".iob", ".iob2", ".txt")

    def open(self) -> Conll:
        """Nothing to make ready but to look for the files."""
        self.files()
        return self

    def pieces(self) -> list[Piece]:
        """A file a piece: sentences have no bounds that show at a byte."""
        return [Piece(str(path), 0, -1, path.stat().st_size) for path in self.files()]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """A row for each sentence."""
        path = Path(piece.path)
        tokens: list[str] = []
        tags: list[str] = []
        begin = 0
        for line in files.lines(path, longest=self.longest):
            text = self._text(line, path)
            if isinstance(text, Skipped):
                yield text
                continue
            if not text.strip() or text.startswith("-DOCSTART-"):
                if tokens:
                    yield Found({"tokens": tokens, "tags": tags}, piece.path, begin)
                tokens, tags = [], []
                continue
            cells = text.split(self.separator)
            if len(cells) < 2:
                where = f"{path}, line {files.line_number(path, line.at)}"
                raise TrainingError(f"{where}: {text[:60]!r} is no word and tag; give the separator if it is no blank.")
            if not tokens:
                begin = line.at
            try:
                token, tag = cells[self.token], cells[self.tag]
            except IndexError:
                where = f"{path}, line {files.line_number(path, line.at)}"
                raise TrainingError(
                    f"{where} has {len(cells)} columns; token = {self.token} and tag = {self.tag} ask for more."
                ) from None
            tokens.append(token.removeprefix(self.prefix))
            tags.append(tag)
        if tokens:
            yield Found({"tokens": tokens, "tags": tags}, piece.path, begin)


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

    def open(self) -> ParallelLines:
        """Nothing to make ready but to look for the files."""
        self.files()
        return self

    def files(self) -> tuple[Path, ...]:
        """The two files."""
        return (*files.find((self.source,), (".txt",)), *files.find((self.target,), (".txt",)))

    def identity(self) -> Mapping[str, Any]:
        """The choice as plain data."""
        return {"kind": "ParallelLines", "encoding": self.encoding, "longest": self.longest}

    def pieces(self) -> list[Piece]:
        """Ranges of 10,000 lines. Raises TrainingError where one file has more lines than the other."""
        sides = self.files()
        if len(sides) != 2:
            raise TrainingError(f"{self.source} and {self.target} should be one file each; give the files.")
        counts = [sum(1 for _ in files.lines(path, longest=self.longest)) for path in sides]
        if counts[0] != counts[1]:
            raise TrainingError(
                f"{sides[0]} has {counts[0]:,} lines, and {sides[1]} has {counts[1]:,}; "
                "they should have a line for a line."
            )
        size = sum(path.stat().st_size for path in sides) * LINES // max(counts[0], LINES)
        return [Piece(str(sides[0]), at, at + LINES, size) for at in range(0, counts[0], LINES)]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """A row for each pair of lines. Those before are read over, which takes little beside tokenising these."""
        sides = self.files()
        readers = [TextLines(paths=(str(path),), encoding=self.encoding, longest=self.longest) for path in sides]
        streams = [islice(files.lines(path, longest=self.longest), piece.start, piece.stop) for path in sides]
        for pair in zip(*streams, strict=True):
            texts = [reader._text(line, path) for reader, line, path in zip(readers, pair, sides, strict=True)]
            assert isinstance(texts[0], str) and isinstance(texts[1], str)
            if texts[0].strip() and texts[1].strip():
                yield Found({"source": texts[0], "target": texts[1]}, str(sides[0]), pair[0].at)
            else:
                yield Skipped("pairs with a blank side")


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
        ends = range(0, len(self.rows), 2000)
        return [
            Piece(self.name, at, min(at + 2000, len(self.rows)), 100 * min(2000, len(self.rows) - at)) for at in ends
        ]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """Each row."""
        for at in range(piece.start, piece.stop):
            yield Found(self.rows[at], self.name, at, False)
