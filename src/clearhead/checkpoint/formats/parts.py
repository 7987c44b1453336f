"""What a format's reader gives: config keys as a config.json has them, and tensors under the names of the family's
table, each made from its file when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clearhead.checkpoint.report import Account
from clearhead.errors import CheckpointError


@dataclass(frozen=True)
class Said:
    """What a format's header says: the keys of a config.json, what became of the header's own, and what to note."""

    keys: dict[str, Any]
    accounts: tuple[Account, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One tensor. dtype: what `make` gives; None is no dtype of weights, and `stored` says which it is."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    make: Callable[[], Tensor]
    release: Callable[[], None] = lambda: None
    stored: str = ""


@dataclass
class Parts:
    """The tensors of a file, as `transfer.Tensors` wants them."""

    where: str
    parts: Mapping[str, Part]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape."""
        return {name: part.shape for name, part in self.parts.items()}

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's dtype. Raises CheckpointError for one that is no dtype of weights."""
        part = self.parts[name]
        if part.dtype is None or not part.dtype.is_floating_point:
            stored = part.stored or str(part.dtype).removeprefix("torch.")
            raise CheckpointError(f"{self.where}: {name} has the dtype {stored}, and weights are numbers with a point.")
        return part.dtype

    def read(self, name: str) -> Tensor:
        """The tensor."""
        return self.parts[name].make()

    def release(self, name: str) -> None:
        """Give back the memory of what it was made from."""
        self.parts[name].release()
