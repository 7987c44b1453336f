"""Sampling. From the logits of the next token to one id. Each rule is a plain function, logits to logits.

A rule that forbids an id sets its logit to −∞. p is softmax(logits) throughout. The rules are applied in the order in
which they stand here, which is the order of transformers' `generate`; greedy decoding leaves out those that cut off
the unlikely, and beam search gives log p for logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.generate.settings import GenerationSettings

Logits = Float[Tensor, "B V"]
Ids = Int[Tensor, "B T"]
Real = Bool[Tensor, "B T"]


@dataclass(frozen=True, eq=False)
class Written:
    """What there is when the next id is chosen.

    ids, real: the texts so far, and which of their ids are no padding, which stands on the left. new: how many of the
    ids are new. last: whether the next one is the last. ends: the ids that end a text. source, source_real: what an
    encoder-decoder reads, and of a decoder the prompt.
    """

    ids: Ids
    real: Real
    new: int
    last: bool
    ends: tuple[int, ...]
    source: Int[Tensor, "B Ts"]
    source_real: Bool[Tensor, "B Ts"]


def seen_in(ids: Ids, real: Real, vocab_size: int) -> Bool[Tensor, "B V"]:
    """Which ids of the vocabulary stand in each text."""
    counts = torch.zeros(ids.shape[0], vocab_size, dtype=torch.long, device=ids.device)
    return counts.scatter_add_(1, ids.long(), real.long()) > 0


def repetition_penalty(logits: Logits, seen: Bool[Tensor, "B V"], penalty: float) -> Logits:
    """Ids `seen` in the text already: l / penalty where l > 0, l · penalty where l < 0 (Keskar et al. 2019, §4.1).

    The paper divides alone, which would make negative logits likelier; transformers multiplies those, and so do we.
    """
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def no_repeat(
    logits: Logits, ids: Ids, real: Real, past: Int[Tensor, "B Tp"], past_real: Bool[Tensor, "B Tp"], n: int
) -> Logits:
    """No run of n ids that stands in `past` is completed at the end of the text `ids` (Paulus et al. 2018, §2.5)."""
    if ids.shape[1] < n - 1 or past.shape[1] < n:
        return logits
    begun, begun_real = ids[:, ids.shape[1] - (n - 1) :], real[:, ids.shape[1] - (n - 1) :]
    runs = past.unfold(1, n, 1)
    same = (runs[..., :-1] == begun[:, None]).all(-1) & past_real.unfold(1, n, 1).all(-1) & begun_real.all(-1)[:, None]
    counts = torch.zeros_like(logits, dtype=torch.long).scatter_add_(1, runs[..., -1].long(), same.long())
    return logits.masked_fill(counts > 0, -math.inf)


def no_bad_words(logits: Logits, ids: Ids, real: Real, words: Sequence[Sequence[int]]) -> Logits:
    """No run of ids out of `words` is completed at the end of the text."""
    forbidden = torch.zeros_like(logits, dtype=torch.bool)
    for *before, last in words:
        if len(before) <= ids.shape[1]:
            begun = slice(ids.shape[1] - len(before), None)
            forbidden[:, last] |= ((ids[:, begun] == ids.new_tensor(before)) & real[:, begun]).all(-1)
    return logits.masked_fill(forbidden, -math.inf)


def forbid(logits: Logits, ids: Sequence[int]) -> Logits:
    """None of these ids; one outside the vocabulary never comes anyway."""
    return logits.masked_fill(_these(logits, ids), -math.inf)


def force(logits: Logits, ids: Sequence[int]) -> Logits:
    """One of these ids and no other; each has the logit 0."""
    return torch.zeros_like(logits).masked_fill(~_these(logits, ids), -math.inf)


def _these(logits: Logits, ids: Sequence[int]) -> Bool[Tensor, " V"]:
    return torch.isin(torch.arange(logits.shape[-1], device=logits.device), torch.tensor(ids, device=logits.device))


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
    drawn = torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=logits.shape[-1] - 1)  # where every id is forbidden, nothing can be drawn: the last


def adjust(logits: Logits, settings: GenerationSettings, written: Written) -> Logits:
    """All that the settings ask for, in order."""
    logits = _hold_down(logits, settings, written)
    logits = _force(logits, settings, written)
    if not settings.greedy:
        logits = temperature(logits, settings.temperature)
        if settings.top_k is not None:
            logits = top_k(logits, settings.top_k)
        if settings.top_p is not None:
            logits = top_p(logits, settings.top_p)
        if settings.min_p is not None:
            logits = min_p(logits, settings.min_p)
    return logits.log_softmax(-1) if settings.renormalize_logits else logits


def _hold_down(logits: Logits, settings: GenerationSettings, written: Written) -> Logits:
    ids, real = written.ids, written.real
    if settings.repetition_penalty is not None:
        seen = seen_in(ids, real, logits.shape[-1])
        logits = repetition_penalty(logits, seen, settings.repetition_penalty)
    if settings.no_repeat_ngram_size:
        logits = no_repeat(logits, ids, real, ids, real, settings.no_repeat_ngram_size)
    if settings.encoder_no_repeat_ngram_size:
        past = written.source, written.source_real
        logits = no_repeat(logits, ids, real, *past, settings.encoder_no_repeat_ngram_size)
    if settings.bad_words_ids:
        words = [run for run in settings.bad_words_ids if len(run) > 1 or run[0] not in written.ends]
        logits = no_bad_words(logits, ids, real, words)
    if settings.min_new_tokens is not None:
        early = written.new < settings.min_new_tokens
    else:
        early = settings.min_length is not None and ids.shape[1] < settings.min_length
    return forbid(logits, written.ends) if early else logits


def _force(logits: Logits, settings: GenerationSettings, written: Written) -> Logits:
    columns, first = written.ids.shape[1], settings.forced_bos_token_id
    if first is not None and columns == 1:
        logits = force(logits, (first,))
    if settings.forced_eos_token_id is not None and written.last:
        logits = force(logits, settings.ids("forced_eos_token_id"))
    if settings.suppress_tokens is not None:
        logits = forbid(logits, settings.ids("suppress_tokens"))
    forced = 1 if first is not None and columns - written.new == 1 else 0  # what follows a forced id is the first
    if settings.begin_suppress_tokens is not None and written.new == forced:
        logits = forbid(logits, settings.ids("begin_suppress_tokens"))
    return logits
