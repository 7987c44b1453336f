"""Readers of rows with columns: JSON lines, tables, tagged words.

JSON and CSV are not read through Arrow: it fills keys that a row does not have with None, which chat templates see, and
drops cells that are too many. Every value is as the file has it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearhead.errors import ConfigError, TrainingError
from clearhead.train.data import files
from clearhead.train.data.rows import Found, Piece, Row, Skipped
from clearhead.train.data.texts import BLANK, EMPTY, Files, Lines

HEADER = "Does the file's first line name the columns? Then leave columns out."
NO_HEADER = "Is the file's first line no header? Then name the columns: columns = ['text', 'label']."


@dataclass(frozen=True, kw_only=True)
class JsonLines(Lines):
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
class Table(Files):
    """CSV, or TSV: a row a line. columns: their names, where the files have no line of names. separator: `,` or a tab
    by the file's name unless given. quotes: cells in double quotes may hold separators and line ends; a tab-separated
    file has none unless told. Every cell is a text: nothing is guessed to be a number, a date or missing. A quoted
    cell may go on over lines, so a file is read as one piece."""

    columns: tuple[str, ...] | None = None
    separator: str | None = None
    quotes: bool | None = None

    _may_cut = False
    _suffixes = (".csv", ".tsv")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator is not None and len(self.separator) != 1:
            raise ConfigError(f"separator={self.separator!r} should be one character, such as ',' or a tab.")

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """A row for each line; raises TrainingError where it has more or fewer cells than there are columns."""
        path = Path(piece.path)
        separator = self.separator or ("\t" if files.unpacked_name(path).endswith(".tsv") else ",")
        quotes = self.quotes if self.quotes is not None else separator != "\t"
        skipped: list[Skipped] = []
        texts = self._physical(path, skipped)
        rows = csv.reader(
            texts, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, strict=quotes
        )
        names, first = self.columns, True
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
            if skipped:
                yield from skipped
                skipped.clear()
                if not cells:  # what stood for a line that was left out
                    continue
            if not cells or cells == [""]:
                yield Skipped(BLANK)
            elif names is None:
                names = tuple(cells)
                if len(set(names)) != len(names):
                    raise TrainingError(f"{path}: two columns have one name ({', '.join(names)}); give columns.")
            elif first and self.columns is not None and _are_names(cells, names):
                where = f"{path}, line {rows.line_num}"
                raise TrainingError(f"{where} is no row: it names the columns, {', '.join(cells)}; leave columns out.")
            elif len(cells) != len(names):
                raise TrainingError(
                    f"{path}, line {rows.line_num}: {len(cells)} cells, and there are {len(names)} columns "
                    f"({', '.join(names)}); mend the line, or give separator, columns or quotes."
                )
            else:
                doubts = (NO_HEADER, "") if self.columns is None else ("", HEADER if first else "")
                row = dict(zip(names, cells, strict=True))
                yield Found(row, piece.path, rows.line_num, False, unit="line", doubts=doubts)
                first = False
        yield from skipped
        if names is None:
            yield Skipped(EMPTY)

    def _physical(self, path: Path, skipped: list[Skipped]) -> Iterator[str]:
        for line in files.lines(path, longest=self.longest):
            text = self._text(line, path)
            if isinstance(text, Skipped):
                skipped.append(text)
                yield "\n"  # lines are still counted
            else:
                yield text + "\n"


def _are_names(cells: Sequence[str], names: Sequence[str]) -> bool:
    return [cell.strip().lower() for cell in cells] == [name.lower() for name in names]


@dataclass(frozen=True, kw_only=True)
class Conll(Files):
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
        elif not path.stat().st_size:
            yield Skipped(EMPTY)
