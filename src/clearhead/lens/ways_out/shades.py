"""Shades. Weights as places on the colour scale, and as colours: what pictures and notebooks paint with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from clearhead.lens.ways_out import colours


def scale_end(cells: Float[np.ndarray, "h w"], all_of_them: bool) -> float:
    """The weight at the scale's end: the largest, or, of very many, one that no more than one in 200 lies above."""
    cells = np.nan_to_num(cells)
    return colours.round_end(float(cells.max(initial=0.0) if all_of_them else np.quantile(cells, 0.995)))


def places(cells: Float[np.ndarray, "h w"], end: float = 1.0) -> UInt8[np.ndarray, "h w"]:
    """Where on a scale that ends at `end` each weight lies, 1…255.

    Exactly 0, which may not be read, is place 0, and so is what is no number: they are left unpainted.
    """
    cells = np.nan_to_num(cells)
    steps = 1 + np.rint(np.sqrt(np.clip(cells / end, 0, 1)) * 254)
    return np.where(cells > 0, steps, 0).astype(np.uint8)


def palette() -> UInt8[np.ndarray, "256 4"]:
    """The colour of each place, as red, green, blue and how much it covers."""
    return np.array([(0, 0, 0, 0), *((*colour, 255) for colour in colours.ramp(steps=255))], np.uint8)


def painted(cells: Float[np.ndarray, "h w"], end: float = 1.0) -> UInt8[np.ndarray, "h w 4"]:
    """Weights as colours; what is unpainted is clear."""
    colour: np.ndarray = palette()[places(cells, end)]
    return colour
