"""Positions. Attention alone does not know order; here are the ways to tell it.

Added to the embedding: sinusoids, or a learned table. Turned into q and k: rotary, with its scalings. Added to the
scores: T5's buckets and ALiBi's slopes (their rules are in `masks.py`; what they own is here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearhead.errors import ContextError
from clearhead.model.config import (
    DynamicScaling,
    Learned,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rotary,
    Sinusoidal,
    T5Bias,
    YarnScaling,
)
from clearhead.model.masks import BucketBias

# ── added to the embedding ───────────────────────────────────────────────────────────────────────────────────────


def sinusoids(
    positions: Int[Tensor, "B T"], width: int, choice: Sinusoidal, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "B T C"]:
    """sin and cos of position / 10000^(2i/C) (Vaswani et al. 2017, §3.5), in `choice`'s layout.

    endpoint: of position · 10000^(−i/(C/2 − 1)), in float32, as the models that have it were trained.
    """
    places = positions[..., None] + choice.offset
    if choice.endpoint:
        step = math.log(10_000.0) / (width // 2 - 1)
        i = torch.arange(width // 2, device=positions.device, dtype=torch.float32)
        angles = places.float() * torch.exp(i * -step)  # (B, T, C/2)
    else:
        i = torch.arange(0, width, 2, device=positions.device, dtype=torch.float64)
        angles = places.double() / 10_000.0 ** (i / width)  # (B, T, C/2)
    parts = (angles.sin(), angles.cos())
    if choice.layout == "halves":
        return torch.cat(parts, dim=-1).to(dtype)
    return torch.stack(parts, dim=-1).flatten(-2).to(dtype)


class LearnedPositions(nn.Module):
    """A trained vector for each of `context` positions, after `offset` rows that stand for padding."""

    def __init__(self, choice: Learned, context: int, width: int) -> None:
        super().__init__()
        self.choice = choice
        self.context = context
        self.weight = nn.Parameter(torch.zeros(context + choice.offset, width))

    def forward(self, positions: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """The rows of these positions; padding, at −1, has the last row before the first position."""
        return self.weight[(positions + self.choice.offset).clamp(min=0)]


def check_context(last: int, context: int) -> None:
    """Raise `ContextError` where position `last` lies past the positions the model was made for."""
    if last >= context:
        raise ContextError(
            f"the text is {last + 1} tokens long and the model's positions end at {context}; "
            f"shorten it to {context} tokens, or use a model with a longer context."
        )


# ── turned into q and k ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Rotation:
    """The cosines and sines that turn heads at given positions; `width` of each head turns."""

    cos: Float[Tensor, "B T half"]
    sin: Float[Tensor, "B T half"]
    choice: Rotary

    @classmethod
    def at(
        cls,
        choice: Rotary,
        d_head: int,
        positions: Int[Tensor, "B T"],
        length: int | Int[Tensor, " B #T"],
        dtype: torch.dtype,
    ) -> Rotation:
        """The rotation of these positions in texts that are `length` tokens long (RoFormer, eq. 15)."""
        frequencies, growth = rotary_frequencies(choice, d_head, length, positions.device)
        angles = positions[..., None].to(frequencies.dtype) * frequencies  # (B, T, half)
        return cls((angles.cos() * growth).to(dtype), (angles.sin() * growth).to(dtype), choice)

    def turn(self, x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B H T D"]:
        """Turn each pair (a, b) of a head's widths: (a·cos − b·sin, b·cos + a·sin)."""
        cos, sin = self.cos[:, None], self.sin[:, None]  # (B, 1, T, half)
        width = 2 * cos.shape[-1]
        turning, still = x[..., :width], x[..., width:]
        if self.choice.layout == "halves":
            a, b = turning.chunk(2, dim=-1)
            turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        else:
            a, b = turning[..., 0::2], turning[..., 1::2]
            turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        return turned if width == x.shape[-1] else torch.cat((turned, still), dim=-1)


def rotary_frequencies(
    choice: Rotary, d_head: int, length: int | Int[Tensor, " B #T"], device: torch.device | None = None
) -> tuple[Float[Tensor, "*texts half"], float]:
    """Radians per position of each turning pair, θ^(−2i/width) as the scaling bends it, and the factor of cos and sin.

    length: how long the text is now, or the text of each row or token: those that share a batch do not change one
    another. Only the dynamic and LongRoPE scalings look at it; the others give one row for all.
    """
    width = choice.width(d_head)
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    plain = 1.0 / choice.theta**exponents
    scaling = choice.scaling
    if scaling is None:
        return plain, 1.0
    if isinstance(scaling, LinearScaling):
        return plain / scaling.factor, 1.0
    lengths = torch.as_tensor(length, device=exponents.device)[..., None]
    if isinstance(scaling, DynamicScaling):
        return _dynamic(choice.theta, exponents, width, scaling, lengths), 1.0
    if isinstance(scaling, Llama3Scaling):
        return _llama3(plain, scaling), 1.0
    if isinstance(scaling, YarnScaling):
        return _yarn(choice.theta, plain, width, scaling), yarn_growth(scaling)
    return _longrope(choice.theta, exponents, scaling, lengths), longrope_growth(scaling)


def _dynamic(theta: float, exponents: Tensor, width: int, scaling: DynamicScaling, lengths: Tensor) -> Tensor:
    if width <= 2:  # one pair turns at frequency 1 whatever the base
        return torch.ones_like(exponents)
    grown = lengths.double().clamp(min=scaling.original_context) / scaling.original_context
    base = theta * (scaling.factor * grown - (scaling.factor - 1)) ** (width / (width - 2))
    return 1.0 / base.float() ** exponents


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    wavelength = 2 * math.pi / plain
    turns = scaling.original_context / wavelength
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blended = (1 - blend) * plain / scaling.factor + blend * plain
    slow = torch.where(wavelength > scaling.original_context / scaling.low_freq_factor, plain / scaling.factor, plain)
    between = (wavelength >= scaling.original_context / scaling.high_freq_factor) & (
        wavelength <= scaling.original_context / scaling.low_freq_factor
    )
    return torch.where(between, blended, slow)


def _yarn(theta: float, plain: Tensor, width: int, scaling: YarnScaling) -> Tensor:
    def pair_that_turns(times: float) -> float:
        """The index of the pair that makes so many turns within the original context."""
        return width * math.log(scaling.original_context / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001
    index = torch.arange(width // 2, dtype=torch.float32, device=plain.device)
    interpolated = ((index - low) / (high - low)).clamp(0, 1)  # 0 keeps a frequency, 1 divides it
    return plain / scaling.factor * interpolated + plain * (1 - interpolated)


def yarn_growth(scaling: YarnScaling) -> float:
    """YaRN's factor of cos and sin: 0.1·m·ln(factor) + 1 (Peng et al. 2023, eq. 22)."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def growth(mscale: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return growth(scaling.mscale) / growth(scaling.mscale_all_dim)
    return growth(1.0)


def _longrope(theta: float, exponents: Tensor, scaling: LongRopeScaling, lengths: Tensor) -> Tensor:
    short, long = (
        torch.tensor(factors, dtype=torch.float32, device=exponents.device)
        for factors in (scaling.short_factor, scaling.long_factor)
    )
    factors = torch.where(lengths > scaling.original_context, long, short)
    return 1.0 / (factors * theta**exponents)


def longrope_growth(scaling: LongRopeScaling) -> float:
    """LongRoPE's factor of cos and sin: √(1 + ln factor / ln original_context)."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_context))


# ── added to the scores ──────────────────────────────────────────────────────────────────────────────────────────


class RelativeBias(nn.Module):
    """T5's table: a trained number per distance bucket and head, one table for a whole stack."""

    def __init__(self, choice: T5Bias, n_heads: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.choice = choice
        self.bidirectional = bidirectional
        self.weight = nn.Parameter(torch.zeros(choice.buckets, n_heads))

    def forward(self) -> BucketBias:
        """The bias, as a rule that any tile can be had from."""
        return BucketBias(self.weight, self.bidirectional, self.choice.max_distance)


def alibi_slopes(n_heads: int, max_bias: float = 8.0) -> Float[Tensor, " H"]:
    """A slope per head: 2^(−max_bias·k/n) for k = 1…n, for n a power of two; else every second one of 2n is added.

    Press et al. 2021, §3 and their code for head counts that are no power of two.
    """
    power = 2 ** math.ceil(math.log2(n_heads))
    slopes = torch.tensor([2.0 ** (-max_bias * k / power) for k in range(1, power + 1)])
    if power == n_heads:
        return slopes
    return torch.cat((slopes[1::2], slopes[0::2]))[:n_heads]
