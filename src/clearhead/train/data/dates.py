"""Dates: the days of 1900 to 2099 as people write them in English, and as ISO 8601 does. Data that needs no file.

    "Tuesday 3rd of March, 2026"   →  "2026-03-03"

Row n is a pure function of the seed and n: the same rows on any machine, as many as are asked for. A tenth of the days
and a tenth of the styles are never in training, so what was understood can be told from what was remembered.

What is ambiguous is read in one way. Numbers alone are day, month, year, unless the year comes first: 3/4/2026 is the
3rd of April. A number above 12 is no month: 4/25/2026 is the 25th of April. Years of two digits are written only
beside a month's name, and are those of 1969 to 2068, as POSIX has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from clearhead.errors import ConfigError
from clearhead.train.data.rows import Found, Piece, Skipped, ranges

T = TypeVar("T")
Part = Literal["training", "new-days", "new-styles"]

VERSION = 1
"""Raised when the same seed and number begin to give another row, so that an older cache is not taken for it."""

FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
SHORT_FIRST, SHORT_LAST = date(1969, 1, 1), date(2068, 12, 31)
"""Days whose years may be written with two digits."""

# ── styles ───────────────────────────────────────────────────────────────────────────────────────────────────────────

LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "2026-03-25": ("{Y}-{MM}-{DD}", "{Y}-{MM}-{DD}", "{Y}{MM}{DD}"),
    "2026/03/25": ("{Y}/{MM}/{DD}", "{Y}/{M}/{D}", "{Y}.{MM}.{DD}", "{Y} {month} {D}", "{Y}, {month} {D}"),
    "25/03/2026": ("{D}/{M}/{Y}", "{DD}/{MM}/{Y}"),
    "25.03.2026": ("{D}.{M}.{Y}", "{DD}.{MM}.{Y}", "{D}-{M}-{Y}", "{DD}-{MM}-{Y}", "{D}. {M}. {Y}"),
    "03/25/2026": ("{M}/{D}/{Y}", "{MM}/{DD}/{Y}"),
    "25 March 2026": ("{D} {month} {Y}", "{D} {month}, {Y}", "{DD} {month} {Y}", "{D}-{month}-{Y}", "{D}. {month} {Y}"),
    "25th of March, 2026": (
        "{Dth} {month} {Y}",
        "{Dth} {month}, {Y}",
        "{Dth} of {month} {Y}",
        "{Dth} of {month}, {Y}",
        "the {Dth} of {month} {Y}",
        "the {Dth} of {month}, {Y}",
        "The {Dth} of {month}, {Y}",
    ),
    "March 25, 2026": (
        "{month} {D}, {Y}",
        "{month} {D} {Y}",
        "{month} {DD}, {Y}",
        "{month} {Dth}, {Y}",
        "{month} {Dth} {Y}",
        "{month} the {Dth}, {Y}",
    ),
    "March twenty-fifth, 2026": (
        "{month} {day}, {Y}",
        "{month} {day} {Y}",
        "{month} the {day}, {Y}",
        "{day} of {month}, {Y}",
        "{day} of {month} {Y}",
        "the {day} of {month}, {Y}",
        "the {day} of {month} {Y}",
        "The {day} of {month}, {Y}",
        "{Day} of {month}, {Y}",
    ),
    "25 March '26": (
        "{D} {month} '{YY}",
        "{D} {month} ’{YY}",
        "{D} {month} {YY}",
        "{D}-{month}-{YY}",
        "{Dth} of {month} '{YY}",
        "the {Dth} of {month}, '{YY}",
        "{month} {D}, '{YY}",
        "{month} {Dth}, '{YY}",
        "{month} {day}, '{YY}",
    ),
}
"""Families of layouts, each by an example. One is drawn as often as another, and so are the layouts of a family."""

MONTH_FIRST = "03/25/2026"
"""The family that can only say days above 12."""

MONTHS = ("{month}", "{mon}", "{abbr}")
WEEKDAYS = ("{weekday} {}", "{weekday}, {}", "{wd} {}", "{wd}, {}", "{wkd} {}", "{} ({wd})", "{}, {weekday}")
"""Before the date or after it; in half of the rows there is none."""
CASES = ("as it is", "lower", "upper")
"""Half of the rows are as they are."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_MONTHS = _words("January February March April May June July August September October November December")
_ABBREVIATED = _words("Jan. Feb. Mar. Apr. May June July Aug. Sept. Oct. Nov. Dec.")
_WEEKDAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_ABBREVIATED_DAYS = _words("Mon. Tues. Wed. Thurs. Fri. Sat. Sun.")
_UNITS = _words("first second third fourth fifth sixth seventh eighth ninth")
_TEENS = _words("eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth")
_DAYS = (*_UNITS, "tenth", *_TEENS, "twentieth", *(f"twenty-{unit}" for unit in _UNITS), "thirtieth", "thirty-first")
_LETTERS = re.compile(r"\{(Dth|[dD]ay|month|mon|abbr|weekday|wd|wkd)\}")


class Style(NamedTuple):
    """One way to write a day. family: a key of `LAYOUTS`; layout: a format string; case: one of `CASES`."""

    family: str
    layout: str
    case: str

    def days(self) -> tuple[date, date]:
        """The first and the last day that may be written so."""
        return (SHORT_FIRST, SHORT_LAST) if "{YY}" in self.layout else (FIRST, LAST)

    def can_write(self, day: date) -> bool:
        """Whether the text says which day is meant."""
        first, last = self.days()
        return first <= day <= last and (self.family != MONTH_FIRST or day.day > 12)


def written(style: Style, day: date) -> str:
    """The day in this style. Raises ConfigError for one that it cannot say without doubt."""
    if not style.can_write(day):
        raise ConfigError(f"{day} cannot be written as {style.layout!r} without doubt; choose another style.")
    number, month, weekday = day.day, day.month - 1, day.weekday()
    ending = "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    text = style.layout.format(
        D=number,
        DD=f"{number:02d}",
        Dth=f"{number}{ending}",
        day=_DAYS[number - 1],
        Day=_DAYS[number - 1].capitalize(),
        M=month + 1,
        MM=f"{month + 1:02d}",
        month=_MONTHS[month],
        mon=_MONTHS[month][:3],
        abbr=_ABBREVIATED[month],
        Y=day.year,
        YY=f"{day.year % 100:02d}",
        weekday=_WEEKDAYS[weekday],
        wd=_WEEKDAYS[weekday][:3],
        wkd=_ABBREVIATED_DAYS[weekday],
    )
    return text if style.case == "as it is" else text.lower() if style.case == "lower" else text.upper()


# ── which are held out ───────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=1 << 17)
def held_out(thing: Style | date) -> bool:
    """Whether a day, or a style, is one of the tenth that training never shows: by its hash, whatever the seed. A plain
    style, without a weekday and as it is, never is."""
    if isinstance(thing, Style) and thing.case == CASES[0] and "{w" not in thing.layout:
        return False
    told = thing.isoformat() if isinstance(thing, date) else f"{thing.layout} {thing.case}"
    return int.from_bytes(blake2b(told.encode(), digest_size=8).digest()) % 10 == 0


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Chance:
    """Draws that belong to a seed and a number: digits of BLAKE2's hashes of both, which no library will change."""

    def __init__(self, seed: int, number: int) -> None:
        self._said, self._blocks, self._pool = f"{seed}/{number}", 0, 0

    def below(self, n: int) -> int:
        if self._pool >> 64 == 0:
            self._pool = int.from_bytes(blake2b(f"{self._said}/{self._blocks}".encode()).digest())
            self._blocks += 1
        self._pool, drawn = divmod(self._pool, n)
        return drawn

    def one_of(self, choices: tuple[T, ...]) -> T:
        return choices[self.below(len(choices))]


class Example(NamedTuple):
    """A day, the style it is written in, the text, and what it means."""

    day: date
    style: Style
    text: str
    iso: str


def example(seed: int, number: int, part: Part = "training") -> Example:
    """Example `number` of a part. `training`: days and styles that may be learned from. `new-days`: the days that are
    held out, in styles of training. `new-styles`: days and styles that are held out, both."""
    chance = _Chance(seed, number)
    style = _style(chance)
    while held_out(style) != (part == "new-styles"):
        style = _style(chance)
    first, last = (day.toordinal() for day in style.days())
    while True:
        day = date.fromordinal(first + chance.below(last - first + 1))
        if style.can_write(day) and held_out(day) == (part != "training"):
            return Example(day, style, written(style, day), day.isoformat())


def _style(chance: _Chance) -> Style:
    family = chance.one_of(tuple(LAYOUTS))
    layout = chance.one_of(LAYOUTS[family]).replace("{month}", chance.one_of(MONTHS))
    if chance.below(2):
        layout = chance.one_of(WEEKDAYS).replace("{}", layout)
    case = CASES[0] if chance.below(2) or not _LETTERS.search(layout) else chance.one_of(CASES[1:])
    return Style(family, layout, case)


@dataclass(frozen=True, kw_only=True)
class Dates:
    """Rows `{"source": "Tuesday 3rd of March, 2026", "target": "2026-03-03"}`, so many of one part: `training`,
    `new-days` (days that training never shows) or `new-styles` (neither their days nor their styles)."""

    rows: int
    part: Part = "training"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"rows={self.rows} should be a number of dates, 1 or more.")
        if self.part not in ("training", "new-days", "new-styles"):
            raise ConfigError(f"part={self.part!r} is not a choice; choose 'training', 'new-days' or 'new-styles'.")

    def open(self) -> Dates:
        """Nothing to make ready."""
        return self

    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def identity(self) -> Mapping[str, Any]:
        """The choice, and the version of this file's rules."""
        return {"kind": "Dates", "rows": self.rows, "part": self.part, "seed": self.seed, "version": VERSION}

    def pieces(self) -> list[Piece]:
        """Ranges of 2,000."""
        return ranges("dates", self.rows, each=40)

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """Each row."""
        for number in range(piece.start, piece.stop):
            made = example(self.seed, number, self.part)
            yield Found({"source": made.text, "target": made.iso}, "dates", number, in_bytes=False)
