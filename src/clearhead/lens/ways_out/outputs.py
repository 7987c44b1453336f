"""Outputs. A file that is written here takes its place whole, or not at all; a bad path is told before any work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from clearhead.errors import LensError


def check_path(path: str | os.PathLike[str], what: str = "file", example: str = "look.npz") -> Path:
    """The path, where a `what` can be written to it. Raises LensError where not, before the model runs for nothing."""
    path = Path(path)
    folder = path.parent
    try:
        if path.is_dir():
            raise LensError(f"{path} is a folder; give the {what} a name in it, e.g. {path / example}.")
        if path.exists() and not path.is_file():
            raise LensError(f"{path} is no ordinary file; write the {what} to another.")
        if not folder.is_dir():
            raise LensError(f"there is no folder {folder}; make it first, or write the {what} elsewhere.")
    except (OSError, ValueError) as problem:  # a name too long, or with a zero byte in it
        raise LensError(f"{path} is no name for a file: {problem}.") from None
    if not os.access(folder, os.W_OK):
        raise LensError(f"the folder {folder} may not be written to; write the {what} elsewhere.")
    return path


def check_ending(path: Path, endings: tuple[str, ...], what: str) -> str:
    """The path's ending, in lower case and without its dot. Raises LensError unless it is one of these."""
    ending = path.suffix.lower().removeprefix(".")
    if ending not in endings:
        raise LensError(f"{path} does not end like a {what}; end it in {' or '.join('.' + each for each in endings)}.")
    return ending


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` when all is well, and is gone when it is not."""
    path = path.resolve()
    sibling = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with sibling.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(sibling, path)
    except OSError as problem:
        raise LensError(f"{path} cannot be written: {problem.strerror or problem}; write it elsewhere.") from problem
    finally:
        with suppress(OSError):
            sibling.unlink()


def in_bytes(size: int) -> str:
    """A size as people read it: 15.2 MB, 84 kB."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.3g} {unit}" if size < 100 * least else f"{size / least:.0f} {unit}"
    return f"{size:.0f} bytes"
