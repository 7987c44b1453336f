"""Hashes: which bytes the data is, and whether it still is. A file that somebody writes to, from its hash to its last
token, would be learned from under a name that is another's; it is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clearhead.errors import TrainingError
from clearhead.train.data import files
from clearhead.train.data.rows import Source


class Still(NamedTuple):
    """A file as it lies there at a moment: one of these changes when it is written to. fresh: it was written to just
    before, and may be again within the same tick of its clock, which would not show."""

    path: Path
    size: int
    time: int
    number: int
    fresh: bool


def still(source: Source) -> list[Still]:
    """The data's files as they are now, in order."""
    return [_still(path) for path in source.files()]


def _still(path: Path) -> Still:
    try:
        about = path.stat()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror or error}.") from None
    fresh = time.time_ns() - about.st_mtime_ns <= 2_000_000_000
    return Still(path, about.st_size, about.st_mtime_ns, about.st_ino, fresh)


def hashes(read: Sequence[Still], folder: Path) -> list[str]:
    """The SHA-256 of each of these files. One that is as it was when it was hashed before is not read again. Raises
    TrainingError for one that is written to meanwhile."""
    known_path = folder / "hashes.json"
    try:
        known = json.loads(known_path.read_text("utf-8"))
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        known = {}
    found, new = [], False
    for each in read:
        key = f"{each.path.resolve()}:{each.size}:{each.time}:{each.number}"
        digest = known.get(key)
        if not isinstance(digest, str):
            digest = files.digest(each.path)
            _check_same(each, _still(each.path))
            if not each.fresh:
                known[key], new = digest, True
        found.append(digest)
    if new:
        kept = dict(list(known.items())[-10_000:])
        temporary = known_path.with_name(f".hashes.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(kept), "utf-8")
        os.replace(temporary, known_path)
    return found


def check_still(source: Source, read: Sequence[Still], digests: Sequence[str]) -> None:
    """Raise TrainingError unless the files are those that were hashed, to the byte: what was made is of them."""
    now = still(source)
    if changed := {each.path for each in now} ^ {each.path for each in read}:
        raise _written_to(min(changed), "has come, or gone,")
    for before, after, digest in zip(read, now, digests, strict=True):
        _check_same(before, after)
        if before.fresh and files.digest(after.path) != digest:
            raise _written_to(after.path)


def _check_same(before: Still, after: Still) -> None:
    if before[1:4] != after[1:4]:
        raise _written_to(after.path)


def _written_to(path: Path, what: str = "was written to") -> TrainingError:
    return TrainingError(
        f"{path} {what} while the data was read, so it is not known what was learned from; wait until the data is all "
        "there, and begin again."
    )
