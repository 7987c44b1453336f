"""Precision and peak. In what numbers the products are taken, and how many of them the device could take in a second.

Weights and their updates stay float32; under bfloat16 autocast the products are taken in half the bits. That pays only
where the processor multiplies bfloat16 by itself, so it is tried, briefly; the answer is printed and kept with the run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from clearhead.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]

WORTH = 1.5
"""bfloat16 is chosen where its product is this much quicker than float32's: casting back and forth costs, too."""

HOPELESS = 0.1
"""What is so much slower in small will not be quick in large."""

PEAKS = {
    "H200": 989e12,
    "H200 NVL": 836e12,
    "H100": 989e12,
    "H100 NVL": 836e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "T4": 65e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense half-precision products a second, in FLOP/s, as NVIDIA's data sheets give them."""


@dataclass(frozen=True)
class Chosen:
    """The dtype of products, and why."""

    dtype: torch.dtype
    why: str

    @property
    def name(self) -> str:
        """`float32` or `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")

    @contextmanager
    def __call__(self, device: torch.device) -> Iterator[None]:
        """Products inside the block are taken so."""
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            yield


def choose(asked: Precision, device: torch.device) -> Chosen:
    """What was asked for; for `auto`, whichever is quicker on this device, tried with a product of 512³.

    A processor that only pretends to know bfloat16 takes seconds for that, and is found out by one of 128³.
    """
    if asked != "auto":
        if asked not in ("float32", "bfloat16"):
            raise ConfigError(f"precision={asked!r} is not a choice; choose 'auto', 'float32' or 'bfloat16'.")
        return Chosen(getattr(torch, asked), "as asked")
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Chosen(
            torch.bfloat16 if fast else torch.float32,
            "the device multiplies it by itself" if fast else "the device has no bfloat16 of its own",
        )
    if device.type != "cpu":
        return Chosen(torch.float32, f"nothing else is known of {device.type}")
    gain = 1.0
    for size in (128, 512):
        if gain >= HOPELESS:
            times = [product_seconds(dtype, device, size=size) for dtype in (torch.float32, torch.bfloat16)]
            gain = times[0] / times[1]
    said = f"this processor's bfloat16 product is {gain:.2g} × as quick as float32's"
    return Chosen(torch.bfloat16 if gain >= WORTH else torch.float32, said)


def product_seconds(dtype: torch.dtype, device: torch.device, *, size: int, tries: int = 3) -> float:
    """The quickest of a few products of two size×size matrices."""
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for n in range(tries + 1):
        if n and best > 1:
            break  # it is known well enough
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Peak:
    """How many floating-point operations a second the device could do, and where the figure is from."""

    flops: float
    source: str


def peak_named(name: str) -> float | None:
    """The data sheet's figure for a device of this name, by the longest of the table's names that it has in words of
    their own: an L40 is no L4. None for what is not known, and for parts and smaller kinds of a device."""
    if re.search(r"\b(MIG|Laptop|Max-Q)\b", name):
        return None
    for part in sorted(PEAKS, key=len, reverse=True):
        if re.search(rf"\b{re.escape(part)}\b", name):
            return PEAKS[part]
    return None


def peak_of(device: torch.device, dtype: torch.dtype) -> Peak:
    """A GPU's data sheet, where it is known; else the quickest matrix product of 1024³ that was seen here."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = peak_named(name)
        if known is not None and dtype == torch.bfloat16:
            return Peak(known, f"{name}'s data sheet")
        return Peak(2 * 4096**3 / product_seconds(dtype, device, size=4096), f"a product of 4096³ on {name}")
    return Peak(2 * 1024**3 / product_seconds(dtype, device, size=1024), "a product of 1024³ on this processor")


def flops_per_token(n_parameters: int, n_layers: int, d_model: int, length: int, *, causal: bool) -> float:
    """6·N + 12·L·C·T: forward and backward of one token (Chowdhery et al. 2022, appendix B); half the T where causal.

    n_parameters: those that are multiplied by, so without position and token tables, with the output matrix.
    """
    return 6 * n_parameters + 12 * n_layers * d_model * length * (0.5 if causal else 1.0)
