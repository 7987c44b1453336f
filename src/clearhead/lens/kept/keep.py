"""Keeping. Where q and k live while a map can be looked at, and which layers and heads are kept at all.

`AsRun` holds the tensors that the kernel had; nothing is copied that need not be. `Half` rounds them to half the bytes.
`Spilled` writes them to a file that is read back page by page, so that maps of more than the memory can be looked at.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import LensError, OutsideError
from clearhead.lens.index import indices
from clearhead.lens.kept.rows import Rows, mapped, write

CHUNK = 2**24
"""Bytes that are written at once; a spilled tensor is never held twice."""

FEW = 64
"""So many new rows of a growing text have a file of their own; fewer are appended to one."""

Files = dict[str, Rows]
"""The files that one growing text is appended to, by what they hold."""

HALVES = (torch.bfloat16, torch.float16)


class Keep(ABC):
    """Where q and k live until they are released."""

    gone = "its q, k and log-sum-exp are gone"
    """What a released map says."""

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """q or k, kept: a tensor that no one else writes into."""

    def rest(self, x: Tensor) -> Tensor:
        """v or the kernel's output, kept for receipts: never rounded."""
        return own(x)

    def piece(self, x: Float[Tensor, "B H n D"], files: Files, name: str, *, exact: bool) -> Float[Tensor, "B H n D"]:
        """New rows of a text that grows, kept beside those before.

        x: the rows, which nobody else writes into. files: the text's own. exact: never rounded.
        """
        return x


@dataclass(frozen=True)
class AsRun(Keep):
    """In memory, on the device and in the precision in which the kernel had them. The default."""

    def scores(self, x: Tensor) -> Tensor:
        return own(x)


@dataclass(frozen=True)
class Half(Keep):
    """q and k rounded to `dtype`: half the bytes of a float32 model. What has 16 bits already stays as it is.

    The map is then, to float32 rounding, the softmax of the rounded q and k: the log-sum-exp is worked out anew from
    them, for the rows that are looked at, and rows sum to 1. Against the weights that ran, with u = 2⁻⁹ (bfloat16) or
    2⁻¹² (float16, numbers of at most 65,504),

        |A'[i, j] − A[i, j]| ≤ A[i, j] · (e^(2δ) − 1),   δ = |scale| · ‖q_i‖ · max_j ‖k_j‖ · (2u + u²),

    since each score moves by at most δ, and with a softcap by no more.
    """

    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        _check_half(self.dtype)

    def scores(self, x: Tensor) -> Tensor:
        return rounded(x, self.dtype)

    def piece(self, x: Float[Tensor, "B H n D"], files: Files, name: str, *, exact: bool) -> Float[Tensor, "B H n D"]:
        return x if exact else rounded(x, self.dtype)


@dataclass(frozen=True)
class Spilled(Keep):
    """In a memory-mapped file in `folder`; `dtype` rounds what is written, as `Half` does.

    The file is closed and unlinked as soon as it is mapped: however many there are, none stays open, no other process
    can cut one short, and from then on nothing stays in the folder, whatever ends this process. Its space is given back
    when the call is released and the last map of it let go. Of a text that is read piece by piece, or written token by
    token, each piece adds its own rows alone; those of a single token are appended as they ran, whatever `dtype` says.
    Raises LensError where the folder cannot be written to, or the disk is full; what was begun is taken away.
    """

    folder: str | os.PathLike[str]
    dtype: torch.dtype | None = None
    gone: str = field(default="its spill file is closed", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.dtype is not None:
            _check_half(self.dtype)
        if not isinstance(self.folder, str | os.PathLike):
            raise LensError(f"Spilled({self.folder!r}) names no folder to spill to; give one, such as Spilled('/tmp').")
        folder = Path(self.folder)
        if not folder.is_dir():
            raise LensError(f"{folder} is not a folder, so nothing can be spilled there; make it first.")
        if not os.access(folder, os.W_OK):
            raise LensError(f"{folder} cannot be written to, so nothing can be spilled there; choose another folder.")

    def scores(self, x: Tensor) -> Tensor:
        return self._written(x if self.dtype is None else rounded(x, self.dtype))

    def rest(self, x: Tensor) -> Tensor:
        return self._written(x)

    def piece(self, x: Float[Tensor, "B H n D"], files: Files, name: str, *, exact: bool) -> Float[Tensor, "B H n D"]:
        """Many rows have a file of their own, head by head; few are appended to one, row by row."""
        x = x if exact or self.dtype is None else rounded(x, self.dtype)
        if x.shape[2] >= FEW:
            return self._written(x)
        rows = files.setdefault(name, Rows(Path(self.folder)))
        return self._written(x, rows.append)

    def _written(self, x: Tensor, way: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        x = x.detach()
        if x.numel() == 0:
            return x.clone()
        try:
            return way(x) if way is not None else spill(x, Path(self.folder))
        except OSError as error:
            raise LensError(
                f"{x.numel() * x.element_size():,} bytes could not be spilled to {self.folder}: {error.strerror}; "
                "free some space, choose another folder, or keep fewer layers and heads."
            ) from None


AS_RUN = AsRun()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a forward pass is kept: which layers and heads (None: all), where, and whether v and the output too."""

    layers: frozenset[int] | None = None
    heads: frozenset[int] | None = None
    keep: Keep = AS_RUN
    receipts: bool = False

    @classmethod
    def of(
        cls,
        layers: Iterable[int] | None = None,
        heads: Iterable[int] | None = None,
        keep: Keep = AS_RUN,
        receipts: bool = False,
    ) -> Choice:
        """The choice that a user's words make."""
        if not isinstance(keep, Keep):
            raise LensError(f"keep={keep!r} is no way to keep; choose AsRun(), Half() or Spilled(folder).")
        for heads_or_layers, word in ((layers, "layers"), (heads, "heads")):
            if heads_or_layers is not None and not isinstance(heads_or_layers, Iterable):
                raise LensError(
                    f"{word}={heads_or_layers!r} is no list of numbers; write {word}=[{heads_or_layers!r}]."
                )
        chosen = [
            None if some is None else frozenset(indices(some, what))
            for some, what in ((layers, "a layer"), (heads, "a head"))
        ]
        for some, word in zip(chosen, ("layers", "heads"), strict=True):
            if some is not None and not some:
                raise LensError(f"{word}=[] would keep nothing; name some, or leave {word} out for all of them.")
        return cls(layers=chosen[0], heads=chosen[1], keep=keep, receipts=receipts)

    def wants(self, layer: int) -> bool:
        """True if this layer is kept."""
        return self.layers is None or layer in self.layers

    def heads_of(self, n_heads: int, layer: int) -> tuple[int, ...]:
        """The heads that are kept of a layer, in order. Raises OutsideError where one is not there."""
        if self.heads is None:
            return tuple(range(n_heads))
        outside = sorted(head for head in self.heads if not 0 <= head < n_heads)
        if outside:
            raise OutsideError(f"head {outside[0]} is outside layer {layer}; choose from 0…{n_heads - 1}.")
        return tuple(sorted(self.heads))


EVERYTHING = Choice()


def own(x: Tensor) -> Tensor:
    """The tensor alone: a copy where it is a window on something larger that would be kept alive with it."""
    x = x.detach()
    larger = x.untyped_storage().nbytes() > 1.05 * x.numel() * x.element_size()
    return x.clone(memory_format=torch.contiguous_format) if larger else x


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in `dtype` where that is smaller, else as it is. Raises LensError for a number that it cannot hold."""
    if dtype.itemsize >= x.element_size():
        return own(x)
    result = x.detach().to(dtype, memory_format=torch.contiguous_format)
    if dtype == torch.float16 and bool((result.isinf() & x.isfinite()).any()):
        raise LensError("q or k has numbers above 65,504, which float16 cannot hold; choose torch.bfloat16.")
    return result


def spill(x: Float[Tensor, "B H T D"], folder: Path) -> Float[Tensor, "B H T D"]:
    """The same numbers, read back from a file in `folder` as they are touched. Raises OSError."""
    rows = max(1, CHUNK // (x.shape[3] * x.element_size()))

    def fill(handle: int) -> None:
        for text in x:
            for head in text:
                for start in range(0, x.shape[2], rows):
                    part = head[start : start + rows].contiguous().cpu()
                    write(handle, part.view(torch.uint8).numpy().data)

    return mapped(folder, x.numel() * x.element_size(), fill).view(x.dtype).view(x.shape)


def _check_half(dtype: torch.dtype) -> None:
    if dtype not in HALVES:
        raise LensError(f"{dtype} is no half precision; choose torch.bfloat16 or torch.float16.")
