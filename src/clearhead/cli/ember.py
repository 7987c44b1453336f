"""The terminal's colour scale. Dark to light through embers, even steps in OKLab (`lens/ways_out/colours.py`).

Weights are laid on it by their square root: in a row of T tokens most of them are near 1/T, and on a plain scale all of
those would look black. The legend says which colour is which weight.
"""

from __future__ import annotations

import math

from clearhead.lens.ways_out import colours
from clearhead.lens.ways_out.colours import place as place

STOPS = ("#1b1c22", "#45211f", "#8c3a1c", "#d4762c", "#f6bd60", "#fff6df")
"""Lightness rises all the way; the first is a dark that neither a black nor a white terminal swallows."""

STEPS = 64
TICKS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
SHADES = " ░▒▓█"
"""What stands for the colours where there are none."""


def colour(weight: float) -> str:
    """The colour of a weight in 0…1, as #rrggbb."""
    return "#" + "".join(f"{channel:02x}" for channel in _rgb(weight))


def ink(weight: float) -> str:
    """Black or white, for text on top of it: whichever stands off more."""
    return colours.ink_on(_rgb(weight))


def shade(weight: float) -> str:
    """The block that stands for a weight where there are no colours."""
    return SHADES[min(len(SHADES) - 1, math.ceil(place(weight) * (len(SHADES) - 1) - 0.25))]


def _rgb(weight: float) -> colours.RGB:
    return colours.ramp(STOPS, STEPS)[round(place(weight) * (STEPS - 1))]
