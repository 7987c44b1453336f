"""Models small enough to build in a millisecond, one for each way of doing things."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from clearhead.model.config import (
    ALiBi,
    AttentionConfig,
    Biases,
    DynamicScaling,
    FeedForwardConfig,
    LanguageModel,
    Learned,
    LongRopeScaling,
    ModelConfig,
    NoPosition,
    Position,
    Rotary,
    Sinusoidal,
    SpecialTokens,
    StackConfig,
    T5Bias,
)
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder

VOCABULARY, WIDTH, CONTEXT = 61, 32, 96

ATTENTION = AttentionConfig(n_heads=4)
GROUPED = AttentionConfig(n_heads=4, n_kv_heads=2, bias=Biases.none())
FEEDFORWARD = FeedForwardConfig(d_ff=48)

DYNAMIC = Rotary(scaling=DynamicScaling(factor=2.0, original_context=12))
LONGROPE = Rotary(
    scaling=LongRopeScaling(
        short_factor=(1.0, 1.1, 1.2, 1.3), long_factor=(1.0, 2.0, 4.0, 8.0), original_context=12, factor=8.0
    )
)

POSITIONS: dict[str, Position] = {
    "learned": Learned(),
    "learned from row 2": Learned(offset=2),
    "sinusoidal": Sinusoidal(),
    "rotary": Rotary(),
    "rotary interleaved, half": Rotary(layout="interleaved", fraction=0.5),
    "dynamic": DYNAMIC,
    "longrope": LONGROPE,
    "T5": T5Bias(buckets=8, max_distance=20),
    "ALiBi": ALiBi(),
    "ALiBi, rounded": ALiBi(scaled=True, rounded=True),
    "none": NoPosition(),
}


def stack(position: Position | None = None, **choices: object) -> StackConfig:
    """A stack of two layers."""
    plain = StackConfig(
        n_layers=2,
        attention=ATTENTION,
        feedforward=FEEDFORWARD,
        position=position if position is not None else Learned(),
    )
    return replace(plain, **choices)  # type: ignore[arg-type]


def decoder(position: Position | None = None, *, whole: dict[str, object] | None = None, **choices: object) -> Decoder:
    """A decoder with a language model head, in eval mode, its weights large enough to matter."""
    config = ModelConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, context=CONTEXT, decoder=stack(position, **choices), head=LanguageModel()
    )
    return lively(Decoder(replace(config, **(whole or {}))))  # type: ignore[arg-type]


def encoder(position: Position | None = None, *, whole: dict[str, object] | None = None, **choices: object) -> Encoder:
    """An encoder without a head, in eval mode."""
    config = ModelConfig(vocab_size=VOCABULARY, d_model=WIDTH, context=CONTEXT, encoder=stack(position, **choices))
    return lively(Encoder(replace(config, **(whole or {}))))  # type: ignore[arg-type]


def translator(
    position: Position | None = None, *, whole: dict[str, object] | None = None, **choices: object
) -> EncoderDecoder:
    """An encoder-decoder with a language model head, in eval mode."""
    config = ModelConfig(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        context=CONTEXT,
        encoder=stack(position, **choices),
        decoder=stack(position, **{"cross_attention": ATTENTION, **choices}),
        head=LanguageModel(),
        tokens=SpecialTokens(pad=0, eos=(1,), decoder_start=2),
    )
    return lively(EncoderDecoder(replace(config, **(whole or {}))))  # type: ignore[arg-type]


M = TypeVar("M", bound=nn.Module)


def lively(model: M) -> M:
    """Every weight drawn anew, of a size that makes attention look somewhere: fresh weights look everywhere alike."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            if name.endswith("weight") and weight.ndim == 1:  # a norm's
                weight.add_(0.1 * noise)
            else:
                weight.copy_(noise * (0.2 if weight.ndim > 1 else 0.1))
    return model.eval()


def ids(batch: int, length: int, *, seed: int = 0) -> Tensor:
    """Random ids, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (batch, length), generator=generator)


def padded(texts: list[Tensor], *, left: bool = True) -> tuple[Tensor, Tensor]:
    """Texts of unlike lengths as one batch, and which of it is real. Padding is id 0, and must not matter."""
    longest = max(len(text) for text in texts)
    batch, real = torch.zeros(len(texts), longest, dtype=torch.long), torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, text in enumerate(texts):
        span = slice(longest - len(text), None) if left else slice(None, len(text))
        batch[row, span], real[row, span] = text, True
    return batch, real
