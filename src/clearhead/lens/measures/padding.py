"""Padding. What stands in a row of a batch beside its text is measured by nobody: it neither reads nor is read.

A mask says what padding may not be read; that it does not read either, in a text's reading of itself, is said here.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from clearhead.lens.kept.call import Call
from clearhead.model.masks import KeyPadding


def real_keys(call: Call, batch: int = 0) -> Bool[Tensor, " Tk"]:
    """Which keys of a text are tokens: those that no padding rule of the mask calls padding."""
    keys = call.shape[1]
    real = torch.ones(keys, dtype=torch.bool)
    for rule in call.scoring.mask.rules:
        if isinstance(rule, KeyPadding):
            real &= rule.of(batch, 0).real[0, :keys].cpu()
    return real


def real_queries(call: Call, batch: int = 0) -> Bool[Tensor, " Tq"]:
    """Which queries of a text are tokens. In cross-attention, whose mask knows the other text alone, all of them."""
    queries, keys = call.shape
    offset = call.scoring.mask.offset
    if call.kind == "cross" or offset < 0 or offset + queries > keys:
        return torch.ones(queries, dtype=torch.bool)
    return real_keys(call, batch)[offset : offset + queries]


def first_token(call: Call, batch: int = 0) -> int:
    """The first key that is a token: past 0 where a text's padding stands before it."""
    return int(real_keys(call, batch).long().argmax()) if call.shape[1] else 0
