"""Colours. One scale from paper to embers, even in OKLab (Ottosson 2020): twice the step looks twice as far.

Lightness falls all the way by day and rises all the way by night, so that the scale reads without colour vision. A
weight lies on it by its square root: in a row of T tokens most weights are near 1/T, and on a plain scale all of those
would look like nothing. Whoever paints with it draws its legend. The explorer's `colour.js` has the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

DAY = ("#fdfaf3", "#fbe8c4", "#f5bb68", "#db722d", "#9e340f", "#451006")
NIGHT = ("#1c1b20", "#45211f", "#8c3a1c", "#d4762c", "#f6bd60", "#fff6df")
PAPER, INK, SOFT, LINE = "#fffdf9", "#1f1b16", "#6a6157", "#e5ddd0"
"""What a picture is drawn on and written with, by day."""

STEPS = 256

RGB = tuple[int, int, int]


def place(weight: float, full: float = 1.0) -> float:
    """Where on the scale a weight lies, 0…1; `full` is the weight at its end."""
    return math.sqrt(min(max(weight / full, 0.0), 1.0))


@cache
def ramp(stops: tuple[str, ...] = DAY, steps: int = STEPS) -> tuple[RGB, ...]:
    """The scale in so many even steps, as red, green and blue of 0…255."""
    labs = [to_oklab(stop) for stop in stops]
    result = []
    for step in range(steps):
        at = step / (steps - 1) * (len(labs) - 1)
        left = min(int(at), len(labs) - 2)
        result.append(_from_oklab([a + (b - a) * (at - left) for a, b in zip(labs[left], labs[left + 1], strict=True)]))
    return tuple(result)


def rgb(hexed: str) -> RGB:
    """#rrggbb as red, green and blue of 0…255."""
    return int(hexed[1:3], 16), int(hexed[3:5], 16), int(hexed[5:7], 16)


def ink_on(ground: RGB) -> str:
    """Black or white, for text on top of a colour: whichever stands off more (WCAG 2)."""
    red, green, blue = (linear(channel / 255) for channel in ground)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"


def round_end(weight: float) -> float:
    """The least of 1, 0.5, 0.2, 0.1 … 0.001 that is not below `weight`: where a scale ends when no weight is near 1."""
    end = 1.0
    for step in (2, 2.5, 2) * 5:
        if weight > end / step or end <= 0.001:
            break
        end = round(end / step, 6)
    return end


def ticks(end: float, more: bool = False) -> dict[float, str]:
    """The weights that a legend names on a scale that ends at `end`; `more`: some lie beyond, in the last colour."""
    weights = [round(end * part, 6) for part in (0.0, 0.05, 0.25, 0.5, 1.0)]
    return {weight: f"≥{weight:g}" if more and weight == end else f"{weight:g}" for weight in weights}


# ── OKLab ────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_oklab(hexed: str) -> tuple[float, float, float]:
    """#rrggbb as lightness, green to red, and blue to yellow."""
    red, green, blue = (linear(channel / 255) for channel in rgb(hexed))
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    medium = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _from_oklab(lab: Sequence[float]) -> RGB:
    light, a, b = lab
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red, green, blue = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return _channel(red), _channel(green), _channel(blue)


def _channel(c: float) -> int:
    return round(255 * _gamma(min(max(c, 0.0), 1.0)))


def linear(c: float) -> float:
    """An sRGB channel of 0…1 as the light that it stands for."""
    return c / 12.92 if c <= 0.04045 else float(((c + 0.055) / 1.055) ** 2.4)


def _gamma(c: float) -> float:
    return c * 12.92 if c <= 0.0031308 else float(1.055 * c ** (1 / 2.4) - 0.055)
