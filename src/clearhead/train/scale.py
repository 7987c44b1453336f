"""What training costs a device, by formula: bytes it holds, and bytes it sends in a step. docs/scale.md reads these.

Weights, gradients and Adam's two moments are float32, 16 bytes a number: on every device in ddp, one N-th of them on
each of N in fsdp (ZeRO's third stage: Rajbhandari et al. 2020). What a ring of devices sends for V bytes: all-gather
and reduce-scatter (N−1)/N · V each, all-reduce both, 2(N−1)/N · V (Patarasuk & Yuan 2009). Two processes are measured
against these in tests/train/test_scale.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from torch import nn

from clearhead.errors import ConfigError
from clearhead.model.block import Block
from clearhead.model.config import LanguageModel, ModelConfig, RMSNorm, StackConfig
from clearhead.model.transformer import skeleton

WIDE, NARROW = 4, 2
"""Bytes of a float32 and of a bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device. weights, gradients, moments: there all the time. gathered: of fsdp, what is whole for a
    while: the weights outside of the blocks, two blocks (one in use, one on its way), and a gradient not yet divided
    up. narrow: bfloat16 copies of matrices, which products keep for the way back. activations: what the way back needs
    of the tokens. logits: in float32, and their gradient."""

    weights: int
    gradients: int
    moments: int
    gathered: int = 0
    narrow: int = 0
    activations: int = 0
    logits: int = 0

    @property
    def state(self) -> int:
        """What stays from step to step."""
        return self.weights + self.gradients + self.moments

    @property
    def total(self) -> int:
        """All of it, as if the peaks came together."""
        return self.state + self.gathered + self.narrow + self.activations + self.logits


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes that one device sends, and receives, in a step."""

    all_reduce: int = 0
    all_gather: int = 0
    reduce_scatter: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.all_reduce + self.all_gather + self.reduce_scatter


def shares(model: nn.Module, devices: int = 1) -> tuple[list[int], int]:
    """How many numbers one of `devices` holds of each block, and of what is outside of them. FSDP2 divides a tensor by
    its first dimension, into equal parts of which the last may be padding."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    inside = [{id(parameter): parameter for parameter in block.parameters()} for block in blocks]
    known = {key for block in inside for key in block}
    rest = {id(parameter): parameter for parameter in model.parameters() if id(parameter) not in known}

    def held(parameters: dict[int, nn.Parameter]) -> int:
        return sum(-(-p.shape[0] // devices) * (p.numel() // p.shape[0]) for p in parameters.values())

    return [held(block) for block in inside], held(rest)


@lru_cache(maxsize=8)
def _skeleton(config: ModelConfig) -> nn.Module:
    """The model without its numbers; asked of one config again and again."""
    return skeleton(config)


def memory(
    config: ModelConfig,
    *,
    how: Literal["ddp", "fsdp"] = "ddp",
    devices: int = 1,
    rows: int = 0,
    length: int = 0,
    recompute: bool = False,
    bf16: bool = True,
) -> Memory:
    """What one device holds, with `rows` of `length` tokens in each part of a step. Trained whole, by AdamW."""
    devices = devices if how == "fsdp" else 1  # that a number is divided among
    blocks, rest = shares(_skeleton(config), devices)
    largest, n, tokens = max(blocks), sum(blocks) + rest, rows * length
    return Memory(
        weights=WIDE * n,
        gradients=WIDE * n,
        moments=2 * WIDE * n,
        gathered=WIDE * devices * (rest + 2 * largest + max(rest, largest)) if devices > 1 else 0,
        narrow=_narrow(config, recompute=recompute) if bf16 else 0,
        activations=tokens * _activations(config, recompute=recompute, bf16=bf16),
        logits=tokens * config.vocab_size * 2 * WIDE,
    )


def traffic(config: ModelConfig, *, how: Literal["ddp", "fsdp"] = "ddp", devices: int = 1, parts: int = 1) -> Traffic:
    """What one device sends in a step of so many parts. ddp sends with the last part only; fsdp gathers each block
    twice in every part, there and back, what is outside of the blocks once, and scatters every gradient."""
    if devices < 1 or parts < 1:
        raise ConfigError(f"devices={devices} and parts={parts} should be 1 or more.")
    if how == "ddp":
        blocks, rest = shares(_skeleton(config))
        return Traffic(all_reduce=2 * (devices - 1) * WIDE * (sum(blocks) + rest) // devices)
    blocks, rest = shares(_skeleton(config), devices)
    sent = WIDE * (devices - 1)  # of each device's share, to every other one
    return Traffic(
        all_gather=parts * sent * (2 * sum(blocks) + rest), reduce_scatter=parts * sent * (sum(blocks) + rest)
    )


def _narrow(config: ModelConfig, *, recompute: bool) -> int:
    """Autocast multiplies by a copy of a float32 matrix. With recompute one block's are there at a time."""
    model = _skeleton(config)
    blocks = [
        sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)
        for module in model.modules()
        if isinstance(module, Block)
    ]
    table = config.vocab_size * config.d_model if isinstance(config.head, LanguageModel) else 0
    return NARROW * ((max(blocks) if recompute else sum(blocks)) + table)


def _activations(config: ModelConfig, *, recompute: bool, bf16: bool) -> int:
    """Bytes a token that are kept for the way back. With recompute: what each block read, and one block's all."""
    if len(config.stacks) != 1:
        raise ConfigError("activations are counted for models of one stack; leave rows out for an encoder-decoder.")
    stack = config.stacks[0]
    inside = [_kept(config, stack, layer, bf16=bf16) for layer in range(stack.n_blocks)]
    if recompute:
        return WIDE * config.d_model * stack.n_blocks + max(inside)
    return sum(inside)


def _kept(config: ModelConfig, stack: StackConfig, layer: int, *, bf16: bool) -> int:
    """Bytes a token that one block keeps. Products keep what they multiply, in their own precision; norms keep what
    they read, in float32; fused attention keeps q, k, v, its output and a float32 a head, and nothing of length²."""
    choice, width = stack.attention_of(layer), config.d_model
    inner, outer = choice.n_heads * choice.head_width(width), choice.kv_heads * choice.head_width(width)
    feedforward = stack.feedforward_of(layer)
    number = NARROW if bf16 else WIDE
    # Without autocast the maps that read one norm keep one tensor together; with it, a narrow copy each.
    readers = (3 + (2 if feedforward.gated else 1)) if bf16 else 2
    root = isinstance(stack.norm, RMSNorm)
    norms = 2 * WIDE * (width * (2 if root else 1) + (1 if root else 2)) + readers * number * width
    copied = inner if outer != inner else 0  # grouped queries: what is read is put in order before o_proj
    attention = number * (inner + 2 * outer + inner + copied) + WIDE * choice.n_heads
    bent = number * feedforward.d_ff * (4 if feedforward.gated else 2)
    return norms + attention + bent
