"""A ranking in the terminal: what, how likely, as a number and as a bar, and where it belongs."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from clearhead.cli import paint
from clearhead.cli.terminal import Terminal

BAR = 20


def ranking(title: str, rows: Iterable[tuple[str, float, str]], console: Terminal) -> Table:
    """A line for each of (what, probability, text). A score that is no probability has no bar."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in (title, "probability", "", "text"):
        table.add_column(name, justify="right" if name == "probability" else "left", no_wrap=name != "text")
    for what, probability, text in rows:
        bar = paint.bar(probability, BAR, console.colours) if 0 <= probability <= 1 else Text()
        table.add_row(Text(_visible(what)), f"{probability:.4f}", bar, Text(_visible(text)))
    return table


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else "·" for c in text)
