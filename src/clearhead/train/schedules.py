"""Schedules. The learning rate as a function of the step: a factor between 0 and 1, of the rate that was asked for.

A factor depends on the step alone, so that a run that is resumed goes on as if it had never stopped. A warm-up is so
many steps, or, as a number below 1, a share of the run: 0.05 is a twentieth of it, however long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clearhead.errors import ConfigError


@runtime_checkable
class Schedule(Protocol):
    """What the loop asks before each step; steps count from 0."""

    def factor(self, step: int, steps: int) -> float:
        """The share of the learning rate at `step` of a run of `steps`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Warm-up, then the full rate."""

    warmup: int | float = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def factor(self, step: int, steps: int) -> float:
        """min(1, (step + 1) / warmup)."""
        return _warm(step, _steps(self.warmup, steps))


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Warm-up, then half a cosine down to `floor` at the last step (Loshchilov & Hutter 2017)."""

    warmup: int | float = 0
    floor: float = 0.1

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_share("Cosine.floor", self.floor)

    def factor(self, step: int, steps: int) -> float:
        """floor + (1 − floor)·(1 + cos πp)/2, p the share of the way from the warm-up's end to the last step."""
        warmup = _steps(self.warmup, steps)
        if step < warmup:
            return _warm(step, warmup)
        way = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * way)) / 2


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay:
    """Warm-up, the full rate, then straight down to `floor` over the last share `decay` of the run (Hu et al. 2024)."""

    warmup: int | float = 0
    decay: float = 0.2
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_share("WarmupStableDecay.decay", self.decay)
        _check_share("WarmupStableDecay.floor", self.floor)

    def factor(self, step: int, steps: int) -> float:
        """1 until the decay begins, then 1 − (1 − floor)·(share of the decay that is over)."""
        begins, warm = steps - round(self.decay * steps), _warm(step, _steps(self.warmup, steps))
        if step < begins:
            return warm
        over = min(1.0, (step - begins + 1) / max(1, steps - begins))
        return min(warm, 1 - (1 - self.floor) * over)


@dataclass(frozen=True, kw_only=True)
class InverseSquareRoot:
    """Warm-up, then 1/√step (Vaswani et al. 2017, §5.3), scaled to 1 at the warm-up's end."""

    warmup: int = 4000

    def __post_init__(self) -> None:
        if self.warmup < 1:
            raise ConfigError(
                f"warmup={self.warmup} should be a number of steps, 1 or more: with fewer it would begin with an "
                "endless rate."
            )

    def factor(self, step: int, steps: int) -> float:
        """min(n/warmup, √(warmup/n)) with n = step + 1."""
        n = step + 1
        return min(n / self.warmup, math.sqrt(self.warmup / n))


def straight_down() -> WarmupStableDecay:
    """Where nothing is said: a twentieth of the run to warm up, then straight down to nothing (Bergsma et al. 2025)."""
    return WarmupStableDecay(warmup=0.05, decay=0.95)


def _warm(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _steps(warmup: int | float, steps: int) -> int:
    return int(warmup) if warmup >= 1 else round(warmup * steps)


def _check_warmup(warmup: int | float) -> None:
    if not warmup >= 0 or (warmup > 1 and isinstance(warmup, float) and not warmup.is_integer()):
        raise ConfigError(f"warmup={warmup} should be a number of steps, 0 or more, or a share of them below 1.")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}={value} should be a share, between 0 and 1.")
