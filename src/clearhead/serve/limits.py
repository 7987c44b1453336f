"""Limits. How much a request may ask for, and how much the server keeps: every loop and buffer here has its number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server gives at most. Past one of these it answers with a line that names the number."""

    body_bytes: int = 1 << 20
    """A request's body."""
    body_seconds: float = 10.0
    """How long a body may take to arrive."""
    text_chars: int = 100_000
    """A text to look at; the model's own context is usually shorter, and says so."""
    looks: int = 16
    """Looks that are kept; the one used least recently goes first."""
    look_bytes: int = 4 << 30
    """q, k and log-sum-exp of all looks that are kept; the newest is kept in any case."""
    tile_cells: int = 1 << 20
    """Weights in one tile or one pooled overview: 4 MiB of float32."""
    thumb_side: int = 64
    """Cells along each side of a small picture."""
    thumb_cells: int = 1 << 23
    """Cells in all small pictures of one answer."""
    swept_cells: int = 1 << 32
    """Weights that one request may have derived on the way to its answer, about ten seconds' worth on two cores."""
    top: int = 1000
    """Entries of a ranking of weights."""
    running: int = 2
    """Requests that derive weights at the same time. The model itself always runs one text at a time."""
    waiting: int = 8
    """Texts that wait for the model; the next one is sent away with 429."""
    deriving: int = 64
    """Requests that wait for weights; the next one is sent away with 429."""
