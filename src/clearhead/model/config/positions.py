"""Positions, as choices: how a model learns the order of its tokens. The mathematics is in `model/positions.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clearhead.errors import ConfigError
from clearhead.model.config.checks import check_choice, check_counts, check_numbers


@dataclass(frozen=True, kw_only=True)
class NoPosition:
    """The model is told nothing about order (Kazemnejad et al. 2023 call a decoder like this NoPE)."""


@dataclass(frozen=True, kw_only=True)
class Sinusoidal:
    """Fixed sines and cosines added to the embedding (Vaswani et al. 2017, §3.5).

    layout: `interleaved` puts sin at even and cos at odd widths, as the paper; `halves` puts all sines first (Marian).
    endpoint: the slowest wave turns by exactly 1/10000 a position, as in tensor2tensor's code (M2M-100); the paper's
    stop one step before it.
    """

    layout: Literal["interleaved", "halves"] = "interleaved"
    offset: int = 0
    endpoint: bool = False

    def __post_init__(self) -> None:
        check_choice(self, "layout", ("interleaved", "halves"))
        check_counts(self, "offset", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A trained vector for each position, added to the embedding. `offset` unused rows come first (BART, OPT: 2)."""

    offset: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "offset", at_least=0)


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions divided by `factor` (Chen et al. 2023, position interpolation)."""

    factor: float

    def __post_init__(self) -> None:
        check_numbers(self, "factor")


@dataclass(frozen=True, kw_only=True)
class DynamicScaling:
    """The base θ grows with the text once it passes `original_context` (dynamic NTK)."""

    factor: float
    original_context: int

    def __post_init__(self) -> None:
        check_numbers(self, "factor")
        check_counts(self, "original_context")


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Long wavelengths are divided by `factor`, short ones kept, those between blended (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def __post_init__(self) -> None:
        check_numbers(self, "factor", "low_freq_factor", "high_freq_factor")
        check_counts(self, "original_context")
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(
                f"Llama3Scaling: high_freq_factor={self.high_freq_factor} must exceed "
                f"low_freq_factor={self.low_freq_factor}; swap them or correct the file."
            )


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN (Peng et al. 2023): interpolation by parts of the spectrum; cos and sin grow by `attention_factor`.

    attention_factor: None means 0.1·ln(factor)+1, or the ratio of the two mscale values where both are given.
    """

    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, "factor", "beta_fast", "beta_slow", "attention_factor")
        check_numbers(self, "mscale", "mscale_all_dim", inclusive=True)
        check_counts(self, "original_context")


@dataclass(frozen=True, kw_only=True)
class LongRopeScaling:
    """LongRoPE (Ding et al. 2024): one factor per frequency, `long` ones once the text passes `original_context`.

    factor: how far the context was stretched; cos and sin grow by √(1 + ln factor / ln original_context)
    unless `attention_factor` says otherwise.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_context: int
    factor: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "factor", "attention_factor")
        check_counts(self, "original_context", at_least=2)
        if len(self.short_factor) != len(self.long_factor) or not self.short_factor:
            raise ConfigError(
                f"LongRopeScaling: {len(self.short_factor)} short and {len(self.long_factor)} long factors; "
                "give one of each per rotated pair of widths."
            )
        if any(not 0 < f < float("inf") for f in (*self.short_factor, *self.long_factor)):
            raise ConfigError("LongRopeScaling: every factor must be a finite number above 0.")


RotaryScaling = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongRopeScaling


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """q and k are turned by an angle that grows with position (Su et al. 2021, RoPE).

    fraction: the part of each head's width that turns (NeoX: 0.25).
    layout: which widths form a pair: `halves` pairs i with i + D/2 (Hugging Face), `interleaved` pairs 2i with 2i+1
    (the paper, Meta's files).
    """

    theta: float = 10_000.0
    fraction: float = 1.0
    layout: Literal["halves", "interleaved"] = "halves"
    scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "theta", "fraction")
        check_choice(self, "layout", ("halves", "interleaved"))
        if self.fraction > 1.0:
            raise ConfigError(f"Rotary.fraction={self.fraction} is above 1; it is the part of a head that turns.")
        if isinstance(self.scaling, YarnScaling) and self.theta <= 1:
            raise ConfigError(
                f"Rotary.theta={self.theta} with YarnScaling: all pairs turn alike and none can be told from another; "
                "choose a theta above 1, e.g. 10000."
            )

    def width(self, d_head: int) -> int:
        """How many of a head's `d_head` widths turn; always even."""
        width = int(d_head * self.fraction)
        if width % 2 or width == 0:
            raise ConfigError(
                f"rotary positions turn pairs of widths, and {self.fraction} of a head {d_head} wide is {width}; "
                "choose a head width (or fraction) that gives an even number above 0."
            )
        if isinstance(self.scaling, LongRopeScaling) and len(self.scaling.short_factor) != width // 2:
            raise ConfigError(
                f"LongRopeScaling has {len(self.scaling.short_factor)} factors and {width // 2} pairs of widths turn; "
                f"give {width // 2} short and {width // 2} long ones."
            )
        return width

    @property
    def depends_on_length(self) -> bool:
        """True where tokens turn by other angles as the text grows, so that what was cached of them is stale."""
        return isinstance(self.scaling, DynamicScaling | LongRopeScaling)

    def regime(self, length: int) -> int:
        """A number for how texts of this length are turned: alike where it is equal."""
        match self.scaling:
            case DynamicScaling(original_context=original):
                return max(length, original)
            case LongRopeScaling(original_context=original):
                return int(length > original)
            case _:
                return 0


@dataclass(frozen=True, kw_only=True)
class T5Bias:
    """A trained number per head and distance bucket, added to the scores (Raffel et al. 2020). One table a stack."""

    buckets: int = 32
    max_distance: int = 128

    def __post_init__(self) -> None:
        check_counts(self, "buckets", at_least=4, at_most=2**20)
        check_counts(self, "max_distance", at_most=2**30)
        if self.max_distance <= self.buckets // 2:
            raise ConfigError(
                f"T5Bias.max_distance={self.max_distance} must exceed buckets/2={self.buckets // 2}; "
                "half of the buckets hold one distance each."
            )


@dataclass(frozen=True, kw_only=True)
class ALiBi:
    """Scores fall linearly with distance, at a fixed slope per head (Press et al. 2021).

    scaled: what is added is divided by √D, as the scores are. rounded: the slope, and its product with a token's place
    in the text, are rounded to bfloat16. (Falcon does both.)
    """

    max_bias: float = 8.0
    scaled: bool = False
    rounded: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "max_bias")


Position = NoPosition | Sinusoidal | Learned | Rotary | T5Bias | ALiBi
