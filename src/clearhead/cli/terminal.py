"""The terminal that commands print to."""

from __future__ import annotations

from rich.console import Console


class Terminal(Console):
    """rich's console, without highlighting, and with the frame's word for a reader that went away (`cli.main`)."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError

    @property
    def colours(self) -> bool:
        """Whether this terminal shows colours, and its user wants them."""
        return self.color_system is not None and not self.no_color
