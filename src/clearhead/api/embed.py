"""Embedding: one vector for each text. How tokens become one is the checkpoint's to say, or the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clearhead.api.texts import TOGETHER, batch, encoded, several
from clearhead.errors import InputError
from clearhead.model.config import Pooling, SentenceEmbedding
from clearhead.model.heads import pool
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import Decoder, Encoder

if TYPE_CHECKING:
    from clearhead.api import Loaded


def embed(
    lm: Loaded, texts: str | Sequence[str], pooling: Pooling | None, normalise: bool | None
) -> Float[Tensor, "B C"]:
    """The vectors, in the order of the texts."""
    how, to_length_one = _choice(lm, pooling, normalise)
    rows = encoded(lm, several(texts, "embed"))
    vectors = []
    with torch.inference_mode(), without_dropout(lm.model):
        for begin in range(0, len(rows), TOGETHER):
            ids, real = batch(lm, rows[begin : begin + TOGETHER])
            pooled = pool(lm.model(ids, attention_mask=real).hidden, real, how)
            vectors.append(F.normalize(pooled, dim=-1) if to_length_one else pooled)
        return torch.cat(vectors)


def _choice(lm: Loaded, pooling: Pooling | None, normalise: bool | None) -> tuple[Pooling, bool]:
    """The pooling, and whether vectors get length 1: the caller's wish over what the checkpoint says."""
    head = lm.config.head if isinstance(lm.config.head, SentenceEmbedding) else None
    if not isinstance(lm.model, Encoder | Decoder):
        raise InputError(f"{lm.name} is an encoder-decoder, which gives no one vector; load an encoder.")
    ways = get_args(Pooling)
    if pooling is not None and pooling not in ways:
        raise InputError(f"pooling={pooling!r} is not a choice; choose one of {', '.join(ways)}.")
    if pooling is None and head is None:
        raise InputError(
            f"{lm.name} is no sentence embedder, and its files do not say how its tokens become one vector; choose "
            f"a pooling ({', '.join(ways)}), or load an embedder, e.g. clearhead.load('minilm')."
        )
    said = pooling if pooling is not None else head.pooling if head is not None else "mean"
    return said, normalise if normalise is not None else head.normalise if head is not None else False
