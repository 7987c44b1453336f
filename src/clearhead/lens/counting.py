"""Counting. Numbers of things as people say them: 1 layer, 2 layers, layers 1, 3, once, twice."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 6
"""So many numbers are named one by one; of more, the first ones."""


def counted(n: int, word: str) -> str:
    """1 text, 2 texts."""
    return f"{n:,} {word}" + ("" if n == 1 else "s")


def times(n: int) -> str:
    """Once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def numbered(numbers: Sequence[int], word: str) -> str:
    """Layer 5; layers 1, 3."""
    shown = ", ".join(map(str, numbers[:NAMED])) + (" …" if len(numbers) > NAMED else "")
    return f"{word}{'' if len(numbers) == 1 else 's'} {shown}"


def layers_and_heads(layers: Sequence[int], kept: int, heads: int) -> str:
    """6 layers × 12 heads; of parts, layers 1, 3 × 2 of 12 heads. kept: how many of a layer's `heads` there are."""
    every = list(layers) == list(range(len(layers)))
    where = counted(len(layers), "layer") if every else numbered(layers, "layer")
    part = "" if kept == heads else f"{kept} of "
    return f"{where} × {part}{counted(heads, 'head')}"
