"""Rows. A file that grows by a few rows at a time, and is read back where it is mapped: what spilled steps are kept in.

A text that is written token by token leaves one row of q and k at each step. Here each is appended to a file, in blocks
of `ROWS` rows that are mapped as they begin: nothing written before is touched again, and no row stays in memory.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

ROWS = 1024
"""A block of the file has room for so many rows."""


class Rows:
    """Rows of (B, H, D) numbers, appended and read back. What `append` gives stays readable when this is let go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._block: Tensor | None = None  # (ROWS, B, H, D), mapped
        self._file, self._filled = -1, 0
        self._close: Callable[[], object] = _nothing

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
        os.lseek(self._file, self._filled * rows[0].numel() * x.element_size(), os.SEEK_SET)  # what broke off is gone
        write(self._file, rows.contiguous().cpu().view(torch.uint8).numpy().data)
        self._filled += n
        return block[self._filled - n : self._filled].permute(1, 2, 0, 3)

    def _begin(self, rows: Float[Tensor, "n B H D"]) -> Float[Tensor, "m B H D"]:
        """A new block, in a file without a name that is as long as it may become."""
        shape = (max(ROWS, len(rows)), *rows.shape[1:])
        size = rows.element_size() * rows[0].numel() * shape[0]
        handle, name = tempfile.mkstemp(prefix="clearhead-", suffix=".spill", dir=self.folder)
        try:
            os.ftruncate(handle, size)
            mapped = mmap.mmap(handle, size)
        except BaseException:
            os.close(handle)
            raise
        finally:
            with contextlib.suppress(PermissionError):  # a system that keeps the name of an open file
                os.unlink(name)
        self._close()  # the file of the block before, which is full
        self._close = weakref.finalize(self, os.close, handle)
        block = torch.frombuffer(mapped, dtype=rows.dtype).view(shape)
        self._file, self._filled, self._block = handle, 0, block
        return block


def write(handle: int, data: memoryview) -> None:
    """All of it, where the file stands. Raises OSError."""
    data = data.cast("B")
    while len(data):
        data = data[os.write(handle, data) :]


def _nothing() -> None:
    pass
