"""A model small enough to be trained in a test, and batches that are a pure function of the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clearhead.model import presets
from clearhead.model.transformer import Decoder, build
from clearhead.train.batch import IGNORED, Batch

VOCAB = 23


def tiny(*, dropout: float = 0.0, seed: int = 0) -> Decoder:
    """A GPT-2 of two layers."""
    torch.manual_seed(seed)
    model = build(presets.gpt2(n_layers=2, n_heads=2, d_model=16, vocab_size=VOCAB, context=16, dropout=dropout))
    assert isinstance(model, Decoder)
    return model


class Random:
    """Random ids: batch `step` is drawn from a generator seeded with it. `parts`: how many it is divided into."""

    def __init__(self, rows: int = 8, length: int = 12, parts: int = 1, ignored: float = 0.0) -> None:
        self.rows, self.length, self.parts, self.ignored = rows, length, parts, ignored
        self.asked: list[int] = []

    def at(self, step: int) -> Sequence[Batch]:
        self.asked.append(step)
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(VOCAB, (self.rows, self.length + 1), generator=generator)
        labels = ids[:, 1:].clone()
        labels[torch.rand(labels.shape, generator=generator) < self.ignored] = IGNORED
        each = self.rows // self.parts
        return [
            Batch(
                inputs={"input_ids": ids[a : a + each, :-1]},
                labels=labels[a : a + each],
                rows=tuple(range(a, a + each)),
            )
            for a in range(0, self.rows, each)
        ]

    def state(self) -> Mapping[str, Any]:
        return {"asked": len(self.asked)}

    def load_state(self, told: Mapping[str, Any]) -> None:
        self.asked = [-1] * told["asked"]
