"""The colour scale. Dark to light through embers, even steps in OKLab, so that twice the step looks twice as far.

Weights are laid on it by their square root: in a row of T tokens most of them are near 1/T, and on a plain scale all of
those would look black. The legend says which colour is which weight.
"""

from __future__ import annotations

import math
from functools import cache

STOPS = ("#1b1c22", "#45211f", "#8c3a1c", "#d4762c", "#f6bd60", "#fff6df")
"""Lightness rises all the way; the first is a dark that neither a black nor a white terminal swallows."""

STEPS = 64
TICKS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
SHADES = " ░▒▓█"
"""What stands for the colours where there are none."""


def colour(weight: float) -> str:
    """The colour of a weight in 0…1, as #rrggbb."""
    return _scale()[round(place(weight) * (STEPS - 1))]


def ink(weight: float) -> str:
    """Black or white, for text on top of it: whichever stands off more."""
    hexed = colour(weight)
    red, green, blue = (_linear(int(hexed[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"


def shade(weight: float) -> str:
    """The block that stands for a weight where there are no colours."""
    return SHADES[min(len(SHADES) - 1, math.ceil(place(weight) * (len(SHADES) - 1) - 0.25))]


def place(weight: float) -> float:
    """Where on the scale a weight lies, 0…1."""
    return math.sqrt(min(max(weight, 0.0), 1.0))


@cache
def _scale() -> tuple[str, ...]:
    stops = [_to_oklab(stop) for stop in STOPS]
    result = []
    for step in range(STEPS):
        at = step / (STEPS - 1) * (len(stops) - 1)
        left = min(int(at), len(stops) - 2)
        part = at - left
        mixed = tuple(a + (b - a) * part for a, b in zip(stops[left], stops[left + 1], strict=True))
        result.append(_from_oklab(mixed))
    return tuple(result)


# ── OKLab (Ottosson 2020) ────────────────────────────────────────────────────────────────────────────────────────


def _to_oklab(hexed: str) -> tuple[float, ...]:
    red, green, blue = (_linear(int(hexed[i : i + 2], 16) / 255) for i in (1, 3, 5))
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    medium = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _from_oklab(lab: tuple[float, ...]) -> str:
    light, a, b = lab
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    channels = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(max(c, 0.0), 1.0))):02x}" for c in channels)


def _linear(c: float) -> float:
    return c / 12.92 if c <= 0.04045 else float(((c + 0.055) / 1.055) ** 2.4)


def _gamma(c: float) -> float:
    return c * 12.92 if c <= 0.0031308 else float(1.055 * c ** (1 / 2.4) - 0.055)
