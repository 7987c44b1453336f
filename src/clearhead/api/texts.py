"""Texts in, tensors out: encoded, checked against the model's positions, padded to one length. What the jobs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from clearhead.errors import InputError
from clearhead.model.transformer import check_fits

if TYPE_CHECKING:
    from clearhead.api import Loaded

TOGETHER = 32
"""So many texts are read at once."""


def several(texts: str | Sequence[str], job: str) -> list[str]:
    """One text or several, as a list. Raises InputError where there is none, or an empty one."""
    found = [texts] if isinstance(texts, str) else list(texts)
    if not found or not all(isinstance(text, str) and text.strip() for text in found):
        raise InputError(f"{job} needs at least one text, and none of them empty.")
    return found


def batch(
    lm: Loaded, rows: Sequence[Sequence[int]], *, left: bool = False
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Ids of several texts as one tensor, shorter ones padded, and which of it is real."""
    length = max(map(len, rows))
    device = lm.model.device
    ids = torch.full((len(rows), length), lm.config.tokens.pad or 0, device=device)
    real = torch.zeros(len(rows), length, dtype=torch.bool, device=device)
    for number, row in enumerate(rows):
        here = slice(length - len(row), length) if left else slice(len(row))
        ids[number, here], real[number, here] = torch.tensor(row, device=device), True
    return ids, real


def encoded(lm: Loaded, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts that the model is to read whole. Raises ContextError where one does not fit."""
    rows = [lm.tokenizer.encode(text).ids for text in texts]
    check_fits(lm.config, max(map(len, rows)))
    return rows
