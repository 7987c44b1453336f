"""The generator of dates: the same rows everywhere, texts that mean one day, and parts that share nothing."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import pytest

from clearhead.errors import ConfigError
from clearhead.text import Tokenizer
from clearhead.train.data import dates
from clearhead.train.data.dates import LAYOUTS, Dates, Style, example, held_out, written
from clearhead.train.data.encoders import Translation
from clearhead.train.data.prepare import prepared
from clearhead.train.data.rows import Found


def texts(source: Dates) -> list[tuple[str, str]]:
    reader = source.open()
    rows = [found for piece in reader.pieces() for found in reader.read(piece)]
    return [(found.row["source"], found.row["target"]) for found in rows if isinstance(found, Found)]


def test_a_row_is_a_function_of_the_seed_and_its_number() -> None:
    rows = texts(Dates(rows=50))
    assert rows == texts(Dates(rows=80))[:50] and rows != texts(Dates(rows=50, seed=1))
    told = hashlib.sha256(repr(texts(Dates(rows=300))).encode()).hexdigest()
    assert (dates.VERSION, told[:16]) == (1, "42f3c688862b857c"), "the rows have changed; raise VERSION"


def test_the_styles_that_people_write() -> None:
    day = date(2026, 3, 3)
    for layout, text in {
        "{weekday} {Dth} of {month}, {Y}": "Tuesday 3rd of March, 2026",
        "{month} {day}, {Y}": "March third, 2026",
        "{wkd} {abbr} {D}, '{YY}": "Tues. Mar. 3, '26",
        "{DD}/{MM}/{Y} ({wd})": "03/03/2026 (Tue)",
        "{Y}-{MM}-{DD}": "2026-03-03",
    }.items():
        assert written(Style("any", layout, "as it is"), day) == text
        assert written(Style("any", layout, "upper"), day) == text.upper()
    endings = [written(Style("any", "{Dth}", "as it is"), date(2026, 1, n)) for n in (1, 2, 3, 4, 11, 12, 13, 21, 31)]
    assert endings == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "31st"]


STRANGE = {"’": "", "'": "", "(": "", ")": "", " of ": " ", "the ": "", "tues.": "tue", "thurs.": "thu", "sept.": "sep"}
"""What dateutil does not know, and what it does."""


@pytest.mark.parametrize("part", ["training", "new-days", "new-styles"])
def test_another_reader_understands_them_alike(part: dates.Part) -> None:
    """dateutil, told that days come first, reads what has no numbers in words as the day that it was written for."""
    parser = pytest.importorskip("dateutil.parser")
    read = 0
    for made in (example(5, n, part) for n in range(500)):
        layout, text = made.style.layout, made.text.lower()
        if "{day}" in layout or "{Day}" in layout:
            continue
        for theirs, plain in STRANGE.items():
            text = text.replace(theirs, plain)
        found = parser.parse(text, dayfirst=not 0 <= layout.find("{Y}") < layout.find("{D")).date()
        assert (found.month, found.day, found.year % 100) == (made.day.month, made.day.day, made.day.year % 100), text
        assert "{YY}" in layout or found.year == made.day.year
        read += 1
    assert read > 300


def test_the_parts_share_no_day_and_no_style() -> None:
    training = [example(0, n) for n in range(3000)]
    days, styles = {made.day for made in training}, {made.style for made in training}
    for n in range(300):
        new_day, new_style = example(0, n, "new-days"), example(0, n, "new-styles")
        assert new_day.day not in days and new_style.day not in days and new_style.style not in styles
        assert held_out(new_style.style) and not held_out(new_day.style)
    assert 0.05 < sum(held_out(date.fromordinal(700_000 + n)) for n in range(2000)) / 2000 < 0.15


def test_every_family_is_in_every_part() -> None:
    for part in ("training", "new-days", "new-styles"):
        assert {example(1, n, part).style.family for n in range(400)} == set(LAYOUTS)


def test_what_is_in_doubt_is_not_written() -> None:
    for n in range(2000):
        made = example(2, n)
        assert made.iso == made.day.isoformat() and 1900 <= made.day.year <= 2099
        assert made.style.family != dates.MONTH_FIRST or made.day.day > 12
        assert "{YY}" not in made.style.layout or 1969 <= made.day.year <= 2068
    with pytest.raises(ConfigError, match="without doubt"):
        written(Style(dates.MONTH_FIRST, "{M}/{D}/{Y}", "as it is"), date(2026, 3, 4))
    with pytest.raises(ConfigError, match="without doubt"):
        written(Style("25 March '26", "{D} {month} '{YY}", "as it is"), date(1950, 3, 4))


@pytest.mark.usefixtures("as_a_user")
def test_a_source_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="rows=0"):
        Dates(rows=0)
    with pytest.raises(ConfigError, match="'test' is not a choice"):
        Dates(rows=1, part="test")  # type: ignore[arg-type]


def test_they_are_tokenised_like_any_other_data(tmp_path: Path) -> None:
    source = Dates(rows=2_300)
    rows = texts(source)
    tokenizer = Tokenizer.train(
        (text for row in rows for text in row), kind="character", special_tokens=["<pad>", "<eos>", "<unk>"]
    )
    cache = prepared(source, tokenizer, Translation(), folder=tmp_path, workers=1, quiet=True)
    assert len(cache) == 2_300
    for at in (0, 1_999, 2_000, 2_299):
        assert tokenizer.decode(cache[at]["ids"].tolist()) == rows[at][0]
        assert cache[at]["target"].tolist() == [*tokenizer.encode(rows[at][1]).ids, tokenizer.eos_id]
