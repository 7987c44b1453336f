"""Outputs. A file that is written here takes its place whole, or not at all; a bad path is told before any work."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from clearhead.errors import InputError, LensError

DRAWN = (".png", ".svg", ".pdf")
"""Endings of pictures that matplotlib draws."""


def check_path(path: str | os.PathLike[str], what: str = "file", example: str = "look.npz") -> Path:
    """The path, where a `what` can be written to it. Raises LensError where not, before the model runs for nothing."""
    if not isinstance(path, str | os.PathLike):
        raise LensError(f"{path!r} is no name for a file; give the {what} one, e.g. {example!r}.")
    path = Path(path)
    folder = path.parent
    try:
        if path == Path():
            raise LensError(f"an empty name, or '.', is a folder; give the {what} a name in it, e.g. {example}.")
        if path.is_dir():
            raise LensError(f"{path} is a folder; give the {what} a name in it, e.g. {path / example}.")
        if path.exists() and not path.is_file():
            raise LensError(f"{path} is no ordinary file; write the {what} to another.")
        if not folder.is_dir():
            raise LensError(f"there is no folder {folder}; make it first, or write the {what} elsewhere.")
    except (OSError, ValueError) as problem:  # a name too long, or with a zero byte in it
        raise LensError(f"{path} is no name for a file: {problem}.") from None
    _try(path, what)
    return path


def _try(path: Path, what: str) -> None:
    """Begin the file, and take it away again: no rights, too long a name, a place that takes no files are told now."""
    sibling = _beside(path.resolve())
    try:
        before = sibling.parent.stat()
        sibling.open("xb").close()
        sibling.unlink()
        with suppress(OSError):  # not everyone may; the folder looks as if nobody had tried
            os.utime(sibling.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    except OSError as problem:
        why = problem.strerror or str(problem)
        raise LensError(f"the {what} cannot be written to {path}: {why}; write it elsewhere.") from None


def _beside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def check_drawn(path: str | os.PathLike[str]) -> None:
    """Raise InputError for what matplotlib draws no picture to; an empty name is `check_path`'s to tell."""
    if Path(path).suffix.lower() not in DRAWN and Path(path) != Path():
        raise InputError(f"{path} is none of {', '.join(DRAWN)}; name the picture so.")


def check_ending(path: Path, endings: tuple[str, ...], what: str) -> str:
    """The path's ending, in lower case and without its dot. Raises LensError unless it is one of these."""
    ending = path.suffix.lower().removeprefix(".")
    if ending not in endings:
        ends = " or ".join(f".{each}" for each in endings)
        raise LensError(f"{path} does not end as the name of {_with_article(what)} does; end it in {ends}.")
    return ending


def _with_article(what: str) -> str:
    """A page, an SVG picture."""
    return f"{'an' if what.startswith(('SVG', 'a', 'e', 'i', 'o')) else 'a'} {what}"


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` when all is well, and is gone when it is not."""
    path = path.resolve()
    sibling = _beside(path)
    try:
        out = sibling.open("xb")
        try:
            with out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            os.replace(sibling, path)
        finally:  # what was not opened here is not ours to take away
            with suppress(OSError):
                sibling.unlink()
    except OSError as problem:
        raise LensError(f"{path} cannot be written: {problem.strerror or problem}; write it elsewhere.") from problem


def in_bytes(size: int) -> str:
    """A size as people read it: 15.2 MB, 84 kB."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.3g} {unit}" if size < 100 * least else f"{size / least:.0f} {unit}"
    return f"{size:.0f} bytes"
