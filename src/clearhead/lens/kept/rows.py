"""Rows. A file that grows by a few rows at a time, and is read back where it is mapped: what spilled steps are kept in.

A text that is written token by token leaves one row of q and k at each step. Here each goes behind the one before, in
blocks of up to `ROWS` rows that are mapped as they begin: nothing written is touched again, and no row stays in memory.
A mapped file needs no descriptor: none is open between two rows, however many layers and texts there are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

FIRST, ROWS = 64, 1024
"""A text's first block has room for so many rows; each other for twice as many as the one before, up to the second."""


class Rows:
    """Rows of (B, H, D) numbers, appended and read back. What `append` gives stays readable when this is let go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._block: Tensor | None = None  # (≤ ROWS, B, H, D), mapped
        self._filled = 0

    def append(self, x: Float[Tensor, "B H n D"]) -> Float[Tensor, "B H n D"]:
        """The same numbers, in the file. Raises OSError where the disk is full; what was appended before stands."""
        if x.numel() == 0:
            return x
        rows = x.permute(2, 0, 1, 3)  # as they are written: a row after the other, all its heads together
        block, n = self._block, len(rows)
        if (
            block is None
            or block.dtype != x.dtype
            or block.shape[1:] != rows.shape[1:]
            or self._filled + n > len(block)
        ):
            block = self._begin(rows)
        place = block[self._filled : self._filled + n]
        with torch.inference_mode():  # where the block was begun in it, it can be written to nowhere else
            place.copy_(rows)
        self._filled += n
        return place.permute(1, 2, 0, 3)

    def _begin(self, rows: Float[Tensor, "n B H D"]) -> Float[Tensor, "m B H D"]:
        """A new block. Its room on the disk is taken now: a mapped file cannot say that it is full. Raises OSError."""
        room = min(ROWS, FIRST if self._block is None else 2 * len(self._block))
        shape = (max(room, len(rows)), *rows.shape[1:])
        size = rows.element_size() * rows[0].numel() * shape[0]
        flat = mapped(self.folder, size, lambda handle: reserve(handle, size), shared=True)
        self._filled, self._block = 0, flat.view(rows.dtype).view(shape)
        return self._block


def mapped(folder: Path, size: int, fill: Callable[[int], object], *, shared: bool = False) -> UInt8[Tensor, " size"]:
    """A new file in `folder` as a tensor, without a name and without an open descriptor; it is gone with the tensor.

    fill: makes it `size` bytes long. shared: what is written to the tensor is written to the file. Raises OSError.
    """
    handle, name = tempfile.mkstemp(prefix="clearhead-", suffix=".spill", dir=folder)
    try:
        try:
            fill(handle)
        finally:
            os.close(handle)
        try:
            return torch.from_file(name, shared=shared, size=size, dtype=torch.uint8)
        except RuntimeError as error:  # torch's word for what the system refuses: one map too many, say
            raise OSError(errno.ENOMEM, " ".join(str(error).split())) from None
    finally:
        with contextlib.suppress(PermissionError):  # a system that keeps the name of an open file
            os.unlink(name)


def reserve(handle: int, size: int) -> None:
    """Take that many bytes of the disk for a file. Raises OSError where they are not there."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    zeros = memoryview(bytes(min(size, 2**20)))
    for start in range(0, size, len(zeros)):
        write(handle, zeros[: size - start])


def write(handle: int, data: memoryview) -> None:
    """All of it, where the file stands. Raises OSError."""
    data = data.cast("B")
    while len(data):
        data = data[os.write(handle, data) :]
