"""A GGUF file (llama.cpp's): a few counts, metadata as pairs of key and value, a list of tensors, and their bytes.

The header is read and checked here: no count, length or offset in it is believed before the file is seen to be as long.
Numbers that are packed in blocks (Q8_0, Q4_K …) are unpacked by the `gguf` library, an extra.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearhead.checkpoint.files import check_regular, first_line
from clearhead.checkpoint.mapped import Mapped
from clearhead.errors import CheckpointError, MissingDependencyError, UnsafeFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_ITEMS = 4_000_000
"""Of any list in a header; the largest vocabularies have a quarter of a million tokens."""
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""A metadata type's number, and how struct spells it."""
TEXT, LIST = 8, 9
PLAIN = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}
"""A tensor type's number, and torch's dtype, for those that torch has itself."""
WHOLE = {24: "I8", 25: "I16", 26: "I32", 27: "I64"}


@dataclass(frozen=True)
class Stored:
    """A tensor as the header has it. kind: its type's number. begin, end: its bytes in the file."""

    shape: tuple[int, ...]
    kind: int
    begin: int
    end: int


class GGUF:
    """An open file: its metadata, and its tensors when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Raises UnsafeFileError for sizes that lie, CheckpointError for anything else that is not as it should be."""
        check_regular(path)
        self.path = path
        try:
            size = path.stat().st_size
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
        if size < 24:
            raise UnsafeFileError(f"{path} has {size} bytes and is no GGUF file; fetch it again.")
        self._mapped = Mapped(path, size)
        cursor = _Cursor(self._mapped.view, path)
        if bytes(cursor.take(4)) != MAGIC:
            raise CheckpointError(f"{path} does not begin with GGUF; it is another kind of file.")
        version = cursor.number("I")
        if version not in VERSIONS:
            raise CheckpointError(f"{path} is GGUF of version {version}; we read {VERSIONS[0]} and {VERSIONS[1]}.")
        tensors, pairs = cursor.count(24), cursor.count(13)
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = cursor.text()
            if key in self.metadata:
                raise CheckpointError(f"{path}: the key {key[:80]!r} stands in it twice; fetch it again.")
            self.metadata[key] = cursor.value(cursor.number("I"))
        self.tensors: Mapping[str, Stored] = self._tensors(cursor, tensors, size)

    def _tensors(self, cursor: _Cursor, count: int, size: int) -> dict[str, Stored]:
        listed: list[tuple[str, tuple[int, ...], int, int]] = []
        for _ in range(count):
            name = cursor.text()
            dims = cursor.number("I")
            if dims > 4:
                raise UnsafeFileError(f"{self.path}: {name[:80]!r} claims {dims:,} axes; four are the most.")
            shape = tuple(int(cursor.number("Q")) for _ in range(dims))[::-1]
            listed.append((name, shape, cursor.number("I"), cursor.number("Q")))
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 2**20:
            raise CheckpointError(f"{self.path}: general.alignment is {str(alignment)[:40]}, which cannot be.")
        data = -(-cursor.at // alignment) * alignment
        found: dict[str, Stored] = {}
        for name, shape, kind, offset in listed:
            begin = data + offset
            end = begin + self._bytes(name, shape, kind)
            if name in found:
                raise CheckpointError(f"{self.path}: {name[:80]!r} stands in it twice; fetch it again.")
            if end > size:
                raise UnsafeFileError(
                    f"{self.path}: {name[:80]!r} of shape {shape} would end at byte {end:,} of {size:,}; it is cut "
                    "short or lies: fetch it again."
                )
            found[name] = Stored(shape, kind, begin, end)
        last = 0
        for name, stored in sorted(found.items(), key=lambda item: item[1].begin):
            if stored.begin < last:
                raise UnsafeFileError(f"{self.path}: {name[:80]!r} overlaps the tensor before it; fetch it again.")
            last = stored.end
        return found

    def _bytes(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        if kind in PLAIN:
            return math.prod(shape) * PLAIN[kind].itemsize
        if kind in WHOLE:
            return math.prod(shape) * int(WHOLE[kind][1:]) // 8
        block, size = self._block(name, kind)
        if not shape or shape[-1] % block:
            raise UnsafeFileError(
                f"{self.path}: {name[:80]!r} of shape {shape} has no whole blocks of {block} numbers."
            )
        return math.prod(shape) // block * size

    def _block(self, name: str, kind: int) -> tuple[int, int]:
        """How many numbers a block of this type has, and how many bytes."""
        constants = _library(self.path).constants
        try:
            block, size = constants.GGML_QUANT_SIZES[constants.GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise CheckpointError(
                f"{self.path}: {name[:80]!r} is of type {kind}, which the gguf library here does not know; "
                "pip install -U gguf, or take a file of a common type (F16, Q8_0, Q4_K …)."
            ) from None
        return int(block), int(size)

    def dtype(self, name: str) -> torch.dtype | None:
        """What `read` gives; None for whole numbers, which are no weights."""
        kind = self.tensors[name].kind
        return None if kind in WHOLE else PLAIN.get(kind, torch.float32)

    def packed(self) -> tuple[str, ...]:
        """The names of the types that are packed in blocks."""
        kinds = {stored.kind for stored in self.tensors.values()} - set(PLAIN) - set(WHOLE)
        return tuple(_library(self.path).constants.GGMLQuantizationType(kind).name for kind in sorted(kinds))

    def read(self, name: str) -> Tensor:
        """The tensor: a view of the file's memory, or unpacked to float32."""
        stored = self.tensors[name]
        if stored.kind in PLAIN:
            return self._mapped.tensor(stored.begin, PLAIN[stored.kind], stored.shape)
        block, size = self._block(name, stored.kind)
        rows = (*stored.shape[:-1], stored.shape[-1] // block * size)
        packed = self._mapped.tensor(stored.begin, torch.uint8, rows).numpy()
        library = _library(self.path)
        kind = library.constants.GGMLQuantizationType(stored.kind)
        try:
            return torch.from_numpy(library.quants.dequantize(packed, kind)).view(stored.shape)
        except NotImplementedError:
            raise CheckpointError(
                f"{self.path}: {name[:80]!r} is packed as {kind.name}, which the gguf library cannot unpack; take a "
                "file of a common type (F16, Q8_0, Q4_K …)."
            ) from None

    def release(self, name: str) -> None:
        """Give back the memory of a tensor that was read."""
        stored = self.tensors[name]
        self._mapped.release(stored.begin, stored.end)


def _library(path: Path) -> Any:
    try:
        import gguf
    except ImportError:
        raise MissingDependencyError(
            f"{path} has its weights packed in blocks, which the library gguf unpacks: pip install 'clearhead[gguf]'"
        ) from None
    return gguf


class _Cursor:
    """A place in the header, which moves on as values are read, and never past the file's end."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        if size > len(self.data) - self.at:
            raise UnsafeFileError(
                f"{self.path}: the header claims {size:,} bytes at {self.at:,}, and the file has {len(self.data):,}; "
                "it is cut short or lies: fetch it again."
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        """The next number."""
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, least: int) -> int:
        """The next count, of things that take at least so many bytes each."""
        count: int = self.number("Q")
        if count > MOST_ITEMS or count * least > len(self.data) - self.at:
            raise UnsafeFileError(f"{self.path}: the header claims {count:,} entries, and is not as long; it lies.")
        return count

    def text(self) -> str:
        """The next string."""
        try:
            return bytes(self.take(self.number("Q"))).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: a name in its header is no UTF-8 ({first_line(error)}).") from None

    def value(self, kind: int) -> Any:
        """The next value, of this type."""
        if kind == TEXT:
            return bytes(self.take(self.number("Q"))).decode("utf-8", "surrogateescape")
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind != LIST:
            raise CheckpointError(f"{self.path}: a value in its header has the unknown type {kind}; fetch it again.")
        inner = self.number("I")
        if inner == TEXT:
            return [self.value(TEXT) for _ in range(self.count(8))]
        if inner not in NUMBERS:
            raise CheckpointError(f"{self.path}: a list in its header has items of the type {inner}; none is read.")
        size = struct.calcsize("<" + NUMBERS[inner])
        count = self.count(size)
        return list(struct.unpack(f"<{count}{NUMBERS[inner]}", self.take(count * size)))
