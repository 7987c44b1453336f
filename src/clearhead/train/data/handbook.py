"""The handbook: Python's own reference, half a million letters of English that every Python brings with it.

It is what `help("lambda")` shows, the module `pydoc_data.topics` of the standard library. A text to begin with where no
other is at hand; each version of Python has a slightly other one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clearhead.errors import TrainingError
from clearhead.train.data.rows import Found, Piece, Skipped

MODULE = "pydoc_data.topics"


@dataclass(frozen=True, kw_only=True)
class Handbook:
    """Python's reference: each topic is one document, `{"text": …}`, by the topics' names."""

    def files(self) -> tuple[Path, ...]:
        """The module's file. Raises TrainingError where this Python was installed without it."""
        try:
            spec = find_spec(MODULE)
        except ModuleNotFoundError:
            spec = None
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            raise TrainingError(f"this Python has no {MODULE}; give a text of your own, of kind 'text-files'.")
        return (Path(spec.origin),)

    def identity(self) -> Mapping[str, Any]:
        """The choice as plain data."""
        return {"kind": "Handbook"}

    def open(self) -> Handbook:
        """Nothing to make ready."""
        self.files()
        return self

    def pieces(self) -> list[Piece]:
        """All of it: it is small."""
        (path,) = self.files()
        return [Piece(str(path), 0, -1, path.stat().st_size)]

    def read(self, piece: Piece) -> Iterator[Found | Skipped]:
        """A row for each topic."""
        from pydoc_data.topics import topics

        for number, name in enumerate(sorted(topics)):
            yield Found({"text": topics[name].strip() + "\n"}, piece.path, number, False)
