"""A file in memory. The system brings its pages in as they are read and takes them back when it needs the room; what is
written to a tensor never reaches the file."""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import torch
from torch import Tensor

from clearhead.errors import CheckpointError


class Mapped:
    """The bytes of a file, as tensors that share them."""

    def __init__(self, path: Path, size: int) -> None:
        """size: what the file had when its header was checked. Raises CheckpointError where it has another by now."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}.") from None
        if len(self._map) != size:
            raise CheckpointError(
                f"{path} had {size:,} bytes and has {len(self._map):,}; it changed while it was read."
            )
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)

    @property
    def view(self) -> memoryview:
        """The bytes themselves."""
        return memoryview(self._map)

    def tensor(self, begin: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """The numbers that begin at this byte: a view, or a copy where they lie askew."""
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        some = self._bytes[begin : begin + count * dtype.itemsize]
        return (some.clone() if begin % dtype.itemsize else some).view(dtype).view(shape)

    def release(self, begin: int, end: int) -> None:
        """Give whole pages of a span back, to be read again if they are asked for: they count as this process's memory.

        Only before anything was written to the span's tensors.
        """
        page = mmap.PAGESIZE
        first, last = -(-begin // page) * page, end // page * page
        if last > first and hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
