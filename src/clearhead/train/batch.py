"""A batch: what a model is called on, and what it should have said. The seam between data and the loop.

Objectives make batches out of rows of ids; the loss reads them; nothing else of training knows what is being learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

IGNORED = -100
"""The label of a place from which nothing is learned: padding, prompts, tokens that were not masked."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs by the names of the model's own arguments, and a label for each of its outputs.

    inputs: `input_ids`, and where they are needed `attention_mask`, `documents`, `token_type_ids`,
    `decoder_input_ids`, `decoder_attention_mask`. labels: ids (B, T) or classes (B,), IGNORED where nothing is
    learned; floats (B,) or (B, L) where the classes do not exclude one another. They are aligned with the logits: an
    objective that predicts the next token has shifted them already.
    """

    inputs: Mapping[str, Tensor]
    labels: Int[Tensor, " B *T"] | Float[Tensor, " B *L"]
    rows: tuple[int, ...] = field(default=())
    """Which rows of the data these are, so that a bad batch can be named."""
    mute: bool = False
    """Nothing is learned or counted: it is computed so that each of several processes computes as often."""

    @property
    def n_labels(self) -> int:
        """How many outputs are learned from."""
        if self.labels.is_floating_point():
            return self.labels.shape[0]
        return int((self.labels != IGNORED).sum())

    @property
    def n_tokens(self) -> int:
        """How many real tokens the model reads, source and target: what tokens per second counts."""
        if self.mute:
            return 0
        total = 0
        for ids, mask in (("input_ids", "attention_mask"), ("decoder_input_ids", "decoder_attention_mask")):
            if ids in self.inputs:
                total += int(self.inputs[mask].sum()) if mask in self.inputs else self.inputs[ids].numel()
        return total

    @property
    def n_texts(self) -> int:
        """How many texts these tokens are of: a source and its target are two, what is packed into a row is one."""
        sides = [self.inputs[ids] for ids in ("input_ids", "decoder_input_ids") if ids in self.inputs]
        return 0 if self.mute else sum(len(side) for side in sides)

    def muted(self) -> Batch:
        """The same inputs, from which nothing is learned."""
        places = self.labels.shape[:1] if self.labels.is_floating_point() else self.labels.shape
        return replace(self, labels=torch.full(places, IGNORED), rows=(), mute=True)

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        if torch.device(device).type == self.labels.device.type == "cpu":
            return self
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.to(device, non_blocking=True))
