"""Files, read in bounded pieces. No file is ever held whole, but for a packed text that is one document; and no line
longer than is allowed.

A piece is a range of bytes, so many processes can read one file at once: a line belongs to the piece in which it
begins. Every complaint names the file, the line and the byte.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

from clearhead.errors import ConfigError, TrainingError

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes of a line, unless it is said otherwise."""
PIECE = 8 * 1024 * 1024
"""Bytes of a file that one process reads at a time."""
TooLong = Literal["refuse", "skip", "cut"]
"""What becomes of a line that is longer than allowed."""

_BLOCK = 1 << 20
_WHOLE = 1 << 62

PACKED: Mapping[str, Callable[[Path, Literal["rb"]], IO[bytes]]] = {
    ".gz": gzip.open,  # type: ignore[dict-item]
    ".xz": lzma.open,
    ".bz2": bz2.open,
}
"""Endings of packed files that are unpacked as they are read."""

_LOOKS = {
    b"\x1f\x8b": "it is packed by gzip; let its name end in .gz",
    b"\xfd7zXZ\0": "it is packed by xz; let its name end in .xz",
    b"BZh": "it is packed by bzip2; let its name end in .bz2",
    b"PK\x03\x04": "it is a zip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "it is packed by zstd; unpack it first",
    b"%PDF": "it is a PDF; take the text out of it first",
    b"PAR1": "it is Parquet; read it with kind = 'parquet'",
    codecs.BOM_UTF16_LE: "it looks like UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {name}",
    codecs.BOM_UTF16_BE: "it looks like UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {name}",
}
"""How files begin that are no text, and what to do about them."""


class Line(NamedTuple):
    """A line without its end: where it begins, its bytes (at most `longest` of them), and how many it has in truth."""

    at: int
    content: bytes
    length: int


def find(paths: Iterable[str], suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """The files that these paths name: files as they are, folders searched for `suffixes` (or these and `.gz`, `.xz`,
    `.bz2`), in the order of their names. Raises TrainingError where there is nothing."""
    found: list[Path] = []
    for name in paths:
        path = Path(name).expanduser()
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.is_file() and not _is_hidden(each, path))
            fitting = [each for each in files if unpacked_name(each).endswith(suffixes)]
            if not fitting:
                others = Counter(each.suffix or each.name for each in files).most_common(4)
                there = ", ".join(f"{number} {suffix}" for suffix, number in others) or "no files"
                raise TrainingError(
                    f"no {' or '.join(suffixes)} file in {path}, but {there}; name the files themselves."
                )
            found.extend(fitting)
        elif any(letter in name for letter in "*?["):
            fitting = sorted(
                each for each in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if each.is_file()
            )
            if not fitting:
                raise TrainingError(f"no file is called {name}.")
            found.extend(fitting)
        else:
            raise TrainingError(f"there is no file or folder {path}.")
    if not found:
        raise TrainingError("no data: name at least one file or folder.")
    return tuple(found)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def is_packed(path: Path) -> bool:
    """Whether it can only be read from its beginning."""
    return path.suffix in PACKED


def unpacked_name(path: Path) -> str:
    """The name without the ending that says how it is packed."""
    return path.stem if is_packed(path) else path.name


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, a packed one unpacked. Raises TrainingError where it cannot be read."""
    try:
        with PACKED[path.suffix](path, "rb") if is_packed(path) else open(path, "rb", _BLOCK) as handle:
            yield handle
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise TrainingError(f"{path} is damaged ({error}); fetch it again.") from None
    except OSError as error:
        if is_packed(path) and error.errno is None:  # bz2's word for damage
            raise TrainingError(f"{path} is damaged ({error}); fetch it again.") from None
        raise TrainingError(f"{path} cannot be read: {error.strerror or error}.") from None


def spans(path: Path, piece: int | None = None) -> list[tuple[int, int]]:
    """Ranges of bytes that make up the file; a packed one is read from its beginning only, so it has one."""
    size, piece = path.stat().st_size, piece if piece is not None else PIECE
    if is_packed(path):
        return [(0, _WHOLE)]
    return [(start, min(start + piece, size)) for start in range(0, size, piece)]


def lines(path: Path, start: int = 0, stop: int = _WHOLE, *, longest: int = LONGEST_LINE) -> Iterator[Line]:
    """The lines that begin in `start` … `stop`; of a longer line than `longest` bytes, only the first so many."""
    with opened(path) as handle:
        at = start
        if start:  # a line that began before belongs to the piece before
            handle.seek(start - 1)
            at = start - 1 + _skip_line(handle.readline)[0]
        while at < stop:
            content = handle.readline(longest + 2)
            if not content:
                return
            line = content.removesuffix(b"\n").removesuffix(b"\r")
            size, length = len(content), len(line)
            if not content.endswith(b"\n") and size == longest + 2:
                skipped, end = _skip_line(handle.readline)
                size += skipped
                length = size - end
            yield Line(at, line[:longest], length)
            at += size


def _skip_line(readline: Callable[[int], bytes]) -> tuple[int, int]:
    """How many bytes are left of a line, and how many of them are its end."""
    skipped, block = 0, b""
    while block := readline(_BLOCK):
        skipped += len(block)
        if block.endswith(b"\n"):
            break
    return skipped, 2 if block.endswith(b"\r\n") else int(block.endswith(b"\n"))


def seam(path: Path, near: int, within: int = _BLOCK) -> int:
    """A place at or after `near` to cut a text so that hardly a token crosses: between two lines that are not blank;
    or after any line; or before a space; or at least between two characters."""
    with opened(path) as handle:
        handle.seek(near)
        block = handle.read(within)
    if len(block) < within:
        return near + len(block)
    for at in _ends(block, b"\n"):
        if not block[at - 2 : at - 1].isspace() and not block[at : at + 1].isspace():
            return near + at
    for mark, shift in ((b"\n", 0), (b" ", -1)):
        for at in _ends(block, mark):
            return near + at + shift
    return near + next(at for at in range(len(block)) if block[at] & 0xC0 != 0x80)


def _ends(block: bytes, mark: bytes) -> Iterator[int]:
    at = block.find(mark, 1)
    while 0 < at < len(block) - 1:
        yield at + 1
        at = block.find(mark, at + 1)


def check_encoding(name: str) -> None:
    """Raise ConfigError for an encoding that is unknown, or in which a line's end is not the byte 10."""
    try:
        if "\n".encode(name) == b"\n" and "\n\n".encode(name) == b"\n\n":
            return
    except LookupError:
        raise ConfigError(
            f"encoding={name!r} is none that Python knows; usual ones are 'utf-8' and 'latin-1'."
        ) from None
    raise ConfigError(f"encoding={name!r} ends a line with other bytes; convert the files to UTF-8 first.")


def decode(content: bytes, path: Path, at: int, encoding: str, *, cut: bool = False) -> str:
    """The text of bytes that begin at byte `at` of a file; a byte order mark at its beginning is left out, and a line's
    end is `\\n`. cut: the bytes may end inside a character, which is then dropped.

    Raises TrainingError naming the byte that does not belong.
    """
    if at == 0 and encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content, final=not cut)
    except UnicodeDecodeError as error:
        place = at + error.start
        hint = f"convert it (iconv -f LATIN1 -t UTF-8 {path.name}), or give its encoding, such as encoding = 'latin-1'"
        begin = _begin(path, 8)
        hint = next((what.format(name=path.name) for mark, what in _LOOKS.items() if begin.startswith(mark)), hint)
        byte = content[error.start]
        raise TrainingError(
            f"{path} is not {encoding}: byte 0x{byte:02X} at byte {place} (line {line_number(path, place)}); {hint}."
        ) from None
    return text.replace("\r\n", "\n") if "\r" in text else text


def _begin(path: Path, n: int) -> bytes:
    with opened(path) as handle:
        return handle.read(n)


def line_number(path: Path, at: int) -> int:
    """The number, from 1, of the line to which byte `at` belongs: counted when somebody asks."""
    number, left = 1, at
    with opened(path) as handle:
        while left > 0 and (block := handle.read(min(_BLOCK, left))):
            number += block.count(b"\n")
            left -= len(block)
    return number


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with opened_raw(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]


@contextmanager
def opened_raw(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file as they lie there. Raises TrainingError where it cannot be read."""
    try:
        with open(path, "rb") as handle:
            yield handle
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror or error}.") from None
