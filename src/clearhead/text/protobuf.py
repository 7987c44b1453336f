"""Protocol buffers, read only. A message is a run of fields, each a number, a wire type and a value; nothing else.

Sentencepiece keeps its models in this form. Reading it takes a page, so neither `protobuf` nor a schema is needed:
`fields` yields what is there, and the caller keeps the numbers that it knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from clearhead.errors import TokenizerError

Value = int | float | bytes
"""A varint or a fixed 64-bit number as `int`, a fixed 32-bit one as `float`, anything with a length as `bytes`."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Yield `(field number, value)` in the order of the file; a repeated field comes once for each value.

    Raises `TokenizerError` where the bytes are no message: a value that runs past the end, a number of more than ten
    bytes, field number 0, or a wire type that no writer uses today.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise TokenizerError(f"the protobuf message has field number 0 at byte {at - 1}; the file is damaged")
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == LENGTH:
            size, at = _varint(message, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise TokenizerError(f"the protobuf message has wire type {wire} at byte {at - 1}; the file is damaged")
        end = at + size
        if end > len(message):
            raise TokenizerError(
                f"field {number} of the protobuf message claims {size} bytes at byte {at}, and {len(message) - at} "
                "are left; the file is damaged or was cut short"
            )
        piece = message[at:end]
        at = end
        if wire == LENGTH:
            yield number, piece
        elif wire == FIXED64:
            yield number, int.from_bytes(piece, "little")
        else:
            yield number, struct.unpack("<f", piece)[0]


def signed(varint: int) -> int:
    """What an `int32` field means: protobuf writes a negative number as its 64-bit two's complement."""
    return varint - (1 << 64) if varint >> 63 else varint


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise TokenizerError(f"the protobuf message ends inside a number, at byte {at}; the file was cut short")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise TokenizerError(f"a number in the protobuf message is longer than ten bytes, before byte {at}; it is damaged")
