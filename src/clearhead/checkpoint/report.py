"""The report: what became of every key and every tensor of a checkpoint. Nothing is skipped in silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Fate = Literal["read", "ignored", "refused"]


@dataclass(frozen=True)
class Account:
    """One foreign name. `why` says where a read one went, and for what reason another was ignored or refused."""

    name: str
    fate: Fate
    why: str
    value: Any = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All accounts of one checkpoint, in the order of its files. `notes`: what a reader should know besides."""

    family: str
    keys: tuple[Account, ...] = ()
    tensors: tuple[Account, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, fate: Fate) -> tuple[Account, ...]:
        """The keys, then the tensors, that met this fate."""
        return tuple(account for account in (*self.keys, *self.tensors) if account.fate == fate)
