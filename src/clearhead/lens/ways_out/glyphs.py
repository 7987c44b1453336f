"""Glyphs. Tokens as labels in a picture: any language's letters in a font that has them, what no font has as a box.

matplotlib warns of each letter that its font lacks and draws a box of its own. Here the fonts are asked before: first
those that pictures are set in, then any that is installed; a letter that none of them has is written ▯, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

PREFERRED = ("Inter", "SF Pro Text", "Segoe UI", "Roboto", "Helvetica Neue", "Liberation Sans", "Arial")
LAST = "DejaVu Sans"
"""It comes with matplotlib, so that there always is one."""

BOX = "▯"
LONGEST = 14


@dataclass(frozen=True)
class Labels:
    """What is written beside a map, the fonts to write it in, and how many letters had none."""

    words: tuple[str, ...]
    fonts: tuple[str, ...]
    missing: int


def label(word: str, longest: int = LONGEST) -> str:
    """A token as a label: without the space before it, its line ends seen, and cut where it is long."""
    word = "".join(c if c.isprintable() else "↵" if c == "\n" else "·" for c in word.strip(" "))
    word = word.removeprefix("Ġ").removeprefix("▁") or "␣"
    return word if len(word) <= longest else word[: longest - 1] + "…"


def labels(words: Sequence[str], longest: int = LONGEST) -> Labels:
    """These tokens as labels that can be drawn without a warning."""
    shown = [label(word, longest) for word in words]
    fonts = list(base_fonts())
    boxed: set[str] = set()
    for letter in sorted({c for word in shown for c in word}):
        if any(_has(font, letter) for font in fonts):
            continue
        found = _font_with(letter)
        if found is None:
            boxed.add(letter)
        else:
            fonts.append(found)
    drawn = ["".join(BOX if c in boxed else c for c in word) for word in shown]
    return Labels(tuple(drawn), tuple(fonts), sum(c in boxed for word in shown for c in word))


@cache
def base_fonts() -> tuple[str, ...]:
    """The fonts that pictures are set in here: the first of the preferred that is installed, and the last resort."""
    there = {entry.name for entry in _installed()}
    first = next((name for name in PREFERRED if name in there), None)
    return (first, LAST) if first is not None else (LAST,)


def _installed() -> list[Any]:
    from matplotlib.font_manager import fontManager

    return [entry for entry in fontManager.ttflist if not entry.name.startswith("Last Resort")]  # boxes for all letters


@cache
def _font_with(letter: str) -> str | None:
    """A font that has this letter, the plainest first."""
    plain = [entry for entry in _installed() if entry.style == "normal" and entry.weight in (400, "normal", "regular")]
    return next((entry.name for entry in plain if _has(entry.name, letter)), None)


@cache
def _has(family: str, letter: str) -> bool:
    return ord(letter) in _letters(family)


@cache
def _letters(family: str) -> frozenset[int]:
    """The letters of a font, in the very file that matplotlib will take; none where it cannot read the file."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        file = findfont(FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):  # a bitmap font, such as one of coloured emoji
        return frozenset()
