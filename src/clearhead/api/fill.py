"""Filling in: a text with a gap, and what a masked language model would put there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clearhead.api.texts import batch, encoded, one
from clearhead.errors import InputError
from clearhead.model.config import LanguageModel, MaskedLanguageModel
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import Encoder

if TYPE_CHECKING:
    from clearhead.api import Loaded


@dataclass(frozen=True)
class Candidate:
    """One way to fill one gap.

    token, id: what goes there. probability: of it, among all tokens, with every gap still open. text: the text with
    this gap filled; with several gaps special tokens are spelt, so that the others can be seen. mask: which gap it is.
    """

    token: str
    id: int
    probability: float
    text: str
    mask: int = 0


def fill(lm: Loaded, text: str, top_k: int) -> list[Candidate]:
    """The likeliest `top_k` for each gap, gap by gap, likeliest first."""
    if not isinstance(lm.model, Encoder) or not isinstance(lm.config.head, MaskedLanguageModel | LanguageModel):
        raise InputError(f"{lm.name} fills no gaps; load a masked language model, such as a BERT with its own head.")
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise InputError(f"top_k={top_k!r} is no number of candidates; give at least 1.")
    tokenizer = lm.tokenizer
    mask = tokenizer.special_tokens.get("mask")
    if mask is None or tokenizer.mask_id is None:
        raise InputError(f"the tokenizer of {lm.name} has no mask token, so that no gap can be written.")
    [row] = encoded(lm, [one(text)])
    gaps = [place for place, id in enumerate(row) if id == tokenizer.mask_id]
    if not gaps:
        raise InputError(f"the text has no {mask}; write it where the missing word is.")
    ids, real = batch(lm, [row])
    with torch.inference_mode(), without_dropout(lm.model):
        logits = lm.model(ids, attention_mask=real).logits
        assert logits is not None
        best = logits[0, gaps].float().softmax(-1).topk(min(top_k, logits.shape[-1]), dim=-1)
    found: list[Candidate] = []
    for number, (place, probabilities, tokens) in enumerate(
        zip(gaps, best.values.tolist(), best.indices.tolist(), strict=True)
    ):
        for probability, id in zip(probabilities, tokens, strict=True):
            new = [id] if tokenizer.id_to_token(id) is not None else []  # a table may have rows that no token has
            shown = tokenizer.decode([*row[:place], *new, *row[place + 1 :]], skip_special=len(gaps) == 1)
            found.append(Candidate(tokenizer.decode(new, skip_special=False), id, probability, shown, number))
    return found
