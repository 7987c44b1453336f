"""Treebanks. Sentences with their grammar, as Universal Dependencies writes them: CoNLL-U, ten columns a word.

    1   From   from   ADP   IN    _   3   case   3:case   _
    2   the    the    DET   DT    …   3   det    3:det    _

Column 1 numbers the word (`2-3` is a written form that holds words 2 and 3, `5.1` a word that is not written), 2 is its
form, 7 the number of the word it depends on, 8 the relation. The text is put together again from the forms and
`SpaceAfter=No`, so that every word's characters are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from clearhead.errors import InputError
from clearhead.lens.roles.probes import lines_of

COLUMNS = 10


@dataclass(frozen=True)
class Sentence:
    """A sentence: its text, each word's characters in it, the word it depends on (−1: none), and the relation."""

    text: str
    spans: list[tuple[int, int]]
    heads: list[int]
    relations: list[str]


def read_treebank(path: Path, limit: int | None = None) -> list[Sentence]:
    """The sentences of a CoNLL-U file, at most `limit`. Raises InputError, naming the line, for another file."""
    found = list(islice(_sentences(path), limit))
    if not found:
        raise InputError(f"{path} has no sentence; give a CoNLL-U file, ten columns a word.")
    return found


def _sentences(path: Path) -> Iterator[Sentence]:
    lines: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            if lines:
                yield _sentence(path, lines)
            lines = []
        elif not line.startswith("#"):
            columns = line.split("\t")
            if len(columns) != COLUMNS:
                raise InputError(
                    f"{path}, line {number}: {len(columns)} columns where CoNLL-U has {COLUMNS}, divided by tabs."
                )
            lines.append((number, columns))
    if lines:
        yield _sentence(path, lines)


def _sentence(path: Path, lines: list[tuple[int, list[str]]]) -> Sentence:
    forms: list[tuple[str, str]] = []  # as written, and what follows: a space or nothing
    inside: list[list[str]] = []  # the words of each
    heads: list[int] = []
    relations: list[str] = []
    places: list[int] = []
    open_until = 0
    for number, columns in lines:
        name, form, head, relation, notes = columns[0], columns[1], columns[6], columns[7], columns[9]
        if "." in name:
            continue
        after = "" if "SpaceAfter=No" in notes.split("|") else " "
        if "-" in name:
            open_until = _number(path, number, name.partition("-")[2])
            forms.append((form, after))
            inside.append([])
            continue
        if _number(path, number, name) != len(heads) + 1:
            raise InputError(f"{path}, line {number}: word {name} follows word {len(heads)}; words count from 1.")
        if len(heads) < open_until:
            inside[-1].append(form)
        else:
            forms.append((form, after))
            inside.append([form])
        heads.append(_number(path, number, head) - 1)
        relations.append(relation)
        places.append(number)
    for at, number in zip(heads, places, strict=True):
        if at >= len(heads):
            raise InputError(f"{path}, line {number}: depends on word {at + 1}, and the sentence has {len(heads)}.")
    text = "".join(form + after for form, after in forms).rstrip()
    return Sentence(text, _spans(forms, inside), heads, relations)


def _spans(forms: list[tuple[str, str]], inside: list[list[str]]) -> list[tuple[int, int]]:
    """The characters of each word. Words of one form have a part of it (don't: do, n't), or all (du: de, le)."""
    spans, start = [], 0
    for (form, after), words in zip(forms, inside, strict=True):
        at = start
        parted = "".join(words) == form
        for word in words:
            spans.append((at, at + len(word)) if parted else (start, start + len(form)))
            at += len(word)
        start += len(form) + len(after)
    return spans


def _number(path: Path, line: int, word: str) -> int:
    if not word.isdecimal():
        raise InputError(f"{path}, line {line}: {word!r} stands where CoNLL-U has the number of a word.")
    return int(word)
