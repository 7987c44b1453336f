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


def one(text: str, what: str = "text") -> str:
    """A text. Raises InputError for what is none, or an empty one."""
    if not isinstance(text, str):
        raise InputError(f"the {what} is of type {type(text).__name__}; give a str.")
    if not text.strip():
        raise InputError(f"the {what} is empty; give at least one word.")
    return text


def several(texts: str | Sequence[str], job: str) -> list[str]:
    """One text or several, as a list. Raises InputError where there is none, or an empty one."""
    if isinstance(texts, str):
        return [one(texts)]
    check_list(texts)
    if not texts:
        raise InputError(f"{job} was given no text; give at least one.")
    return [one(text, f"text at place {place}") for place, text in enumerate(texts)]


def check_list(texts: object) -> None:
    """Raise InputError for what is no list of texts."""
    if isinstance(texts, bytes | str) or not isinstance(texts, Sequence):
        raise InputError(f"the text is of type {type(texts).__name__}; give a str, or a list of them.")


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
