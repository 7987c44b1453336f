"""Sampling. From the logits of the next token to one id. Each rule is a plain function, logits to logits.

A rule that forbids an id sets its logit to −∞; every rule leaves at least one id. p is softmax(logits) throughout.
They are applied in the order in which they stand here, which is the order of transformers' `generate`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.generate.settings import GenerationSettings

Logits = Float[Tensor, "B V"]


def repetition_penalty(logits: Logits, seen: Bool[Tensor, "B V"], penalty: float) -> Logits:
    """Ids `seen` in the text already: l / penalty where l > 0, l · penalty where l < 0 (Keskar et al. 2019, §4.1).

    The paper divides alone, which would make negative logits likelier; transformers multiplies those, and so do we.
    """
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def temperature(logits: Logits, value: float) -> Logits:
    """l / T: below 1 the likely become likelier, above 1 all become alike (Ackley et al. 1985)."""
    return logits / value


def top_k(logits: Logits, k: int) -> Logits:
    """The k largest logits stay, and what ties with the last of them (Fan et al. 2018)."""
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def top_p(logits: Logits, p: float) -> Logits:
    """The nucleus: the fewest likeliest ids whose probabilities reach p (Holtzman et al. 2020).

    An id stays where the ids likelier than it sum to less than p. Of equals, the lower id counts as likelier.
    """
    if p >= 1.0:
        return logits
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ranked.softmax(-1)
    likelier = probabilities.cumsum(-1) - probabilities
    kept = likelier < p
    kept[:, 0] = True
    return logits.masked_fill(~torch.zeros_like(kept).scatter(1, order, kept), -math.inf)


def min_p(logits: Logits, p: float) -> Logits:
    """Ids at least p times as likely as the likeliest stay (Nguyen et al. 2024): l ≥ max l + ln p."""
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -math.inf)


def choose(logits: Logits, generator: torch.Generator | None = None) -> Int[Tensor, " B"]:
    """One id for each text: the largest logit, the first of equals; or, given a generator, a draw from softmax(logits).

    A draw turns one number u, uniform in [0, 1), into the first id whose cumulative probability exceeds u. u is drawn
    on the CPU in float64, so that a seed means the same on every device, and one step takes one number from each text.
    """
    if generator is None:
        return logits.argmax(-1)
    cumulative = logits.double().softmax(-1).cumsum(-1)
    u = torch.rand(logits.shape[0], 1, generator=generator, dtype=torch.float64).to(logits.device)
    return torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True)[:, 0]


def adjust(logits: Logits, settings: GenerationSettings, seen: Bool[Tensor, "B V"] | None = None) -> Logits:
    """All that the settings ask for, in order. What cuts off the unlikely is left out where the likeliest is taken."""
    if settings.repetition_penalty is not None and seen is not None:
        logits = repetition_penalty(logits, seen, settings.repetition_penalty)
    if settings.greedy:
        return logits
    logits = temperature(logits, settings.temperature)
    if settings.top_k is not None:
        logits = top_k(logits, settings.top_k)
    if settings.top_p is not None:
        logits = top_p(logits, settings.top_p)
    if settings.min_p is not None:
        logits = min_p(logits, settings.min_p)
    return logits
