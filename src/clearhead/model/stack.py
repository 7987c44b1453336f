"""A stack: an embedding, blocks one after another, and a last norm. An encoder is one, a decoder is one."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearhead.model.block import Block
from clearhead.model.cache import Cache
from clearhead.model.config import ALiBi, ModelConfig, Rotary, StackConfig, T5Bias
from clearhead.model.embedding import Embedding
from clearhead.model.masks import Mask, RoundedSlopeBias, SlopeBias, Window
from clearhead.model.norms import Norm
from clearhead.model.positions import RelativeBias, Rotation, alibi_slopes

Stream = Float[Tensor, "B T C"]


class Stack(nn.Module):
    """Embedding, N blocks, norm. `bidirectional` only tells T5's buckets apart; the mask says who may read whom."""

    def __init__(
        self, config: ModelConfig, stack: StackConfig, *, bidirectional: bool, tokens: nn.Embedding | None = None
    ) -> None:
        super().__init__()
        self.config = stack
        self.bidirectional = bidirectional
        self.embedding = Embedding(config, stack, tokens)
        self.blocks = nn.ModuleList(Block(stack, layer, config.d_model) for layer in range(stack.n_blocks))
        self.norm = Norm(stack.norm, config.d_model) if stack.final_norm else None
        back = self.embedding.around and self.embedding.project is not None
        self.project = nn.Linear(config.d_model, config.d_last, bias=False) if back else None
        heads = stack.attention_of(0).n_heads
        position = stack.position
        self.bias = RelativeBias(position, heads, bidirectional=bidirectional) if isinstance(position, T5Bias) else None

    def block(self, layer: int) -> Block:
        """The block that runs as layer `layer`."""
        block = self.blocks[self.config.block_of(layer)]
        assert isinstance(block, Block)
        return block

    @property
    def turns_by_length(self) -> list[Rotary]:
        """The rotary positions among the layers' whose angles depend on how long the text is."""
        rotaries = {self.config.rotary(layer) for layer in range(self.config.n_layers)}
        return [rotary for rotary in rotaries if rotary is not None and rotary.depends_on_length]

    def has_outgrown(self, cache: Cache, positions: Int[Tensor, "B T"]) -> bool:
        """True where, with these tokens, the text turns by other angles than those that the cached ones were read at.

        Then the whole text is to be read again: a token's vectors in the upper layers hang on the angles below.
        """
        turns = self.turns_by_length
        if not turns or not cache.length or cache.read_at is None:
            return False
        lengths = zip(cache.read_at.tolist(), cache.lengths_with(positions).tolist(), strict=True)
        return any(turn.regime(then) != turn.regime(now) for then, now in lengths for turn in turns)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        positions: Int[Tensor, "B T"],
        mask: Mask,
        *,
        token_type_ids: Int[Tensor, "B T"] | None = None,
        memory: Float[Tensor, "B Tm C"] | None = None,
        memory_mask: Mask | None = None,
        cache: Cache | None = None,
        lengths: Int[Tensor, "B T"] | None = None,
        keep_hidden: bool = False,
    ) -> tuple[Float[Tensor, "B T last"], tuple[Float[Tensor, "B T _"], ...]]:
        """The last vectors, and, where asked for, the stream after the embedding and after each block.

        lengths: how long the text of each token is, where several are packed into a row; else each row is one text.
        """
        x = self.embedding(input_ids, positions, token_type_ids)
        places = cache.positions if cache is not None and cache.positions is not None else positions
        mask = self._with_bias(mask, x, places)
        masks: dict[int | None, Mask] = {}
        rotations: dict[tuple[Rotary, int], Rotation] = {}
        hidden = [x] if keep_hidden else []
        for layer in range(self.config.n_layers):
            block = self.block(layer)
            window = block.attention.config.window
            if window not in masks:
                masks[window] = mask if window is None else mask.and_(Window(window))
            rotary = self.config.rotary(layer)
            rotation = None
            if rotary is not None:
                key = (rotary, block.attention.d_head)
                if key not in rotations:
                    rotations[key] = self._rotation(*key, positions, lengths, cache, x.dtype)
                rotation = rotations[key]
            x = block(
                x,
                mask=masks[window],
                rotation=rotation,
                memory=memory,
                memory_mask=memory_mask,
                cache=cache.layers[layer] if cache is not None else None,
                cross_cache=cache.cross[layer] if cache is not None else None,
            )
            if keep_hidden:
                hidden.append(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.project is not None:
            x = self.project(x)
        if keep_hidden:
            hidden[-1] = x
        return x, tuple(hidden)

    def _with_bias(self, mask: Mask, x: Stream, places: Int[Tensor, "B Tk"]) -> Mask:
        if self.bias is not None:
            return mask.plus(self.bias())
        alibi = self.config.position
        if isinstance(alibi, ALiBi):
            slopes = alibi_slopes(self.config.attention_of(0).n_heads, alibi.max_bias).to(x.device)
            scale = self.block(0).attention.d_head ** -0.5 if alibi.scaled else 1.0
            return mask.plus(RoundedSlopeBias(slopes, places, scale) if alibi.rounded else SlopeBias(slopes * scale))
        return mask

    @staticmethod
    def _rotation(
        rotary: Rotary,
        d_head: int,
        positions: Int[Tensor, "B T"],
        lengths: Int[Tensor, "B T"] | None,
        cache: Cache | None,
        dtype: torch.dtype,
    ) -> Rotation:
        if not rotary.depends_on_length:
            return Rotation.at(rotary, d_head, positions, 0, dtype)
        if lengths is None:
            everyone = cache.positions if cache is not None and cache.positions is not None else positions
            lengths = everyone.amax(dim=1, keepdim=True) + 1
        return Rotation.at(rotary, d_head, positions, lengths, dtype)
