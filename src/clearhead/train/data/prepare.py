"""Preparing: the cache of this data, with this tokenizer, for this purpose. Found where it is, made where it is not.

A cache's name is the hash of everything that decides its numbers: the contents of the files, the tokenizer, the
settings. Nothing is ever taken for what it is not: a cache that is damaged is made again, and that is said; a file that
somebody writes to, from its hash to its last token, is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clearhead._disk import put_in_place
from clearhead.errors import TrainingError
from clearhead.text import Tokenizer
from clearhead.train.data.cache import FORMAT, MANIFEST, Cache, Writer
from clearhead.train.data.encoders import Encoder, identity
from clearhead.train.data.hashes import check_still, hashes, still
from clearhead.train.data.rows import Piece, Source
from clearhead.train.data.tokenise import Work, parts

SMALL = 4 * 1024 * 1024
"""Bytes of data for each process: less is tokenised before another one has started."""


def default_folder() -> Path:
    """Where caches lie unless told otherwise: `CLEARHEAD_CACHE`, or `~/.cache/clearhead/data`."""
    return Path(os.environ.get("CLEARHEAD_CACHE") or "~/.cache/clearhead/data").expanduser()


def prepared(
    source: Source,
    tokenizer: Tokenizer,
    encoder: Encoder,
    *,
    folder: Path | None = None,
    workers: int | None = None,
    verify: bool = True,
    quiet: bool = False,
    waits_quietly: bool = False,
) -> Cache:
    """The cache of `source`, tokenised by `encoder`; made if need be, with its progress on stderr.

    folder: where caches lie. workers: processes; as many as processors, unless given. Several processes may ask at
    once: one makes it, and tells of it; the others wait, and say so unless `waits_quietly`. Raises TrainingError for
    data that is missing, empty or not as it should be, and for a full disk; then nothing is left behind.
    """
    folder = folder if folder is not None else default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tokenizer-", dir=folder) as scratch:
            tokenizer.save(Path(scratch) / "tokenizer")
            read = still(source)
            told: dict[str, Any] = {
                "format": FORMAT,
                "source": dict(source.identity()),
                "files": hashes(read, folder),
                "tokenizer": _hash_folder(Path(scratch) / "tokenizer"),
                "encoder": identity(encoder),
            }
            key = hashlib.sha256(json.dumps(told, sort_keys=True, default=list).encode()).hexdigest()
            final = folder / key[:24]
            with _lock(folder / f".{key[:24]}.lock", quiet or waits_quietly):
                ready = _ready(final, key, verify, quiet)
                if ready is not None:
                    return ready
                temporary = folder / f".{key[:24]}.tmp"
                shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
                temporary.mkdir()
                try:
                    shutil.copytree(Path(scratch) / "tokenizer", temporary / "tokenizer")
                    _make(source, tokenizer, encoder, temporary, workers, {**told, "fingerprint": key}, quiet)
                    check_still(source, read, told["files"])
                    shutil.rmtree(temporary / "tokenizer")
                    put_in_place(temporary, final)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        return Cache(final, verify=False)
    except OSError as error:
        raise TrainingError(
            f"the cache cannot be written in {folder}: {error.strerror or error}; make room, or give another folder "
            "(CLEARHEAD_CACHE)."
        ) from error


def _ready(final: Path, key: str, verify: bool, quiet: bool) -> Cache | None:
    """The cache, if it is there and whole."""
    if not final.exists():
        return None
    try:
        cache = Cache(final, verify=verify)
        if cache.fingerprint != key:
            raise TrainingError(f"{final / MANIFEST} is of other data.")
        return cache
    except TrainingError as error:
        _say(f"the cache is damaged and is made again: {error}", quiet)
        return None


def _make(
    source: Source,
    tokenizer: Tokenizer,
    encoder: Encoder,
    folder: Path,
    workers: int | None,
    told: Mapping[str, Any],
    quiet: bool,
) -> None:
    reader = source.open()
    pieces = reader.pieces()
    size = sum(piece.size for piece in pieces)
    most = min(workers if workers is not None else min(_processors(), size // SMALL), len(pieces))
    vocab_size = max(tokenizer.vocab_size, tokenizer.target.vocab_size)
    writer = Writer(folder, encoder.fields, vocab_size)
    progress = Progress(size, max(most, 1), quiet)
    try:
        work = Work(reader, encoder, vocab_size)
        with closing(parts(work, tokenizer, pieces, folder, most, progress.done)) as made:
            for part in made:
                writer.append(part)
        main = next(iter(encoder.fields))
        n_tokens = writer._ends[main]
        if not writer.rows or not n_tokens:
            why = "; ".join(f"{number:,} {what}" for what, number in writer.notes.items())
            names = ", ".join(map(str, source.files()[:3])) or "the data"
            raise TrainingError(
                f"{names}: there is nothing to learn from, no row has a text{f' ({why})' if why else ''}."
            )
        writer.finish({key: value for key, value in told.items() if key != "format"})
        progress.finished(writer.rows, n_tokens, writer.notes)
    finally:
        writer.close()


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _hash_folder(folder: Path) -> str:
    told = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            told.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return told.hexdigest()


class _lock:
    """One process at a time makes a cache; a lock goes with its process, however that ends."""

    def __init__(self, path: Path, quiet: bool) -> None:
        self._lock, self._quiet = FileLock(path), quiet

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=1)
        except Timeout:
            _say("another process is tokenising this data; waiting for it", self._quiet)
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Progress:
    """How far tokenising is, on stderr: one line that changes on a terminal, a line every ten seconds elsewhere; and
    when it is done, what there is. What takes less is not talked about in between."""

    def __init__(self, size: int, processes: int, quiet: bool) -> None:
        self._size, self._quiet, self._read = max(size, 1), quiet, 0
        self._by = f"{processes} processes" if processes > 1 else "1 process"
        self._begin = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def done(self, piece: Piece) -> None:
        """Count a piece."""
        self._read += piece.size
        now = time.monotonic()
        if now - self._shown < (0.2 if self._terminal else 10.0):
            return
        self._shown = now
        speed = self._read / (now - self._begin)
        left = (self._size - self._read) / speed if speed else 0.0
        line = (
            f"tokenising in {self._by}: {self._read / 1e6:,.0f} of {self._size / 1e6:,.0f} MB, "
            f"{speed / 1e6:.1f} MB/s, {left:,.0f} s left"
        )
        _say(f"\r\x1b[K{line}" if self._terminal else line, self._quiet, end="" if self._terminal else "\n")

    def finished(self, rows: int, n_tokens: int, notes: Mapping[str, int]) -> None:
        """Say what there is, and what was left out or cut."""
        seconds = time.monotonic() - self._begin
        told = "".join(f"; {number:,} {what}" for what, number in notes.items())
        clear = "\r\x1b[K" if self._terminal else ""
        _say(
            f"{clear}tokenised {rows:,} rows to {n_tokens:,} tokens in {seconds:.1f} s by {self._by}{told}", self._quiet
        )


def _say(line: str, quiet: bool, end: str = "\n") -> None:
    if not quiet:
        print(line, end=end, file=sys.stderr, flush=True)
