"""The disk. What is written must survive a power cut, and take its place whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def sync_file(path: Path) -> None:
    """Bring a file that was written to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk, so that a rename in it lasts. Where the system cannot, it is left out."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)


def put_in_place(temporary: Path, final: Path) -> None:
    """Give a finished folder its name; what lay there before is gone only once it has."""
    old = final.with_name(f"{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(temporary, final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def put_text(text: str, final: Path) -> None:
    """Write a text file whole: whoever reads it, even after a power cut, reads what was there before or all of this."""
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, "utf-8")
        sync_file(temporary)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(final.parent)
