"""Pairs. A mention, the name it stands for, and the names it might have stood for: from GAP, or from a table of yours.

GAP (Webster et al. 2018) is a tab-separated table with the columns Text, Pronoun, Pronoun-offset, A, A-offset, A-coref,
B, B-offset, B-coref (and ID, URL, which are not read). Any other table with a header reads as well:

    Text   Mention   Mention-offset   Name   Name-offset   Others

where Others holds the other candidates as `word@offset`, divided by `;`. Offsets count characters from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from clearhead.errors import InputError
from clearhead.lens.roles.probes import lines_of

GAP = ("Text", "Pronoun", "Pronoun-offset", "A", "A-offset", "A-coref", "B", "B-offset", "B-coref")
OWN = ("Text", "Mention", "Mention-offset", "Name", "Name-offset", "Others")

Span = tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A mention in a text, the name it stands for, and at least one other candidate; each as its characters."""

    text: str
    mention: Span
    name: Span
    others: tuple[Span, ...]


@dataclass(frozen=True)
class Pairs:
    """The pairs of a file. without_name: how many rows there were in which the mention stands for none of the names."""

    pairs: list[Pair]
    without_name: int


def read_pairs(path: Path, limit: int | None = None) -> Pairs:
    """The pairs of a file, at most `limit` of them. Raises InputError, naming the line, for one that holds none."""
    lines = lines_of(path)
    header = lines[0].split("\t") if lines else []
    columns = next((kind for kind in (GAP, OWN) if set(kind) <= set(header)), None)
    if columns is None:
        raise InputError(
            f"{path} has no header with the columns {', '.join(OWN)}, or GAP's {', '.join(GAP)}, divided by tabs."
        )
    found: list[Pair] = []
    without = 0
    for number, line in enumerate(islice(lines, 1, None), 2):
        if limit is not None and len(found) >= limit:
            break
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number}: {len(cells)} columns where the header has {len(header)}.")
        row = dict(zip(header, cells, strict=True))
        pair = _gap(path, number, row) if columns is GAP else _own(path, number, row)
        if pair is None:
            without += 1
        else:
            found.append(pair)
    if not found:
        raise InputError(f"{path} has no pair of a mention and its name; give a file that has.")
    return Pairs(found, without)


def _gap(path: Path, number: int, row: dict[str, str]) -> Pair | None:
    names = [_span(path, number, row["Text"], row[name], row[f"{name}-offset"]) for name in ("A", "B")]
    mention = _span(path, number, row["Text"], row["Pronoun"], row["Pronoun-offset"])
    true = [_truth(path, number, row[f"{name}-coref"]) for name in ("A", "B")]
    if sum(true) != 1:
        return None
    right = true.index(True)
    return Pair(row["Text"], mention, names[right], (names[1 - right],))


def _own(path: Path, number: int, row: dict[str, str]) -> Pair:
    text = row["Text"]
    others = []
    for each in row["Others"].split(";"):
        word, at, offset = each.strip().rpartition("@")
        if not at:
            raise InputError(f"{path}, line {number}: Others is {row['Others']!r}; write word@offset, divided by ';'.")
        others.append(_span(path, number, text, word, offset))
    mention = _span(path, number, text, row["Mention"], row["Mention-offset"])
    return Pair(text, mention, _span(path, number, text, row["Name"], row["Name-offset"]), tuple(others))


def _span(path: Path, number: int, text: str, word: str, offset: str) -> Span:
    if not offset.strip().isdecimal():
        raise InputError(f"{path}, line {number}: {offset!r} is no offset; give a number of characters.")
    start = int(offset)
    if not word or text[start : start + len(word)] != word:
        raise InputError(f"{path}, line {number}: {word!r} does not stand at character {start} of the text.")
    return start, start + len(word)


def _truth(path: Path, number: int, word: str) -> bool:
    if word.upper() not in ("TRUE", "FALSE"):
        raise InputError(f"{path}, line {number}: {word!r} stands where TRUE or FALSE belongs.")
    return word.upper() == "TRUE"
