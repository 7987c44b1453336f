"""The recurrent translator: an encoder-decoder of RNNs, LSTMs or GRUs, called as the Transformer's is.

The encoder reads the source from both sides (Schuster & Paliwal 1997), and what it ends in begins the decoder. What the
decoder reads of the source besides is the choice that led to the Transformer:

    summary     the two last states, one vector for a text of any length, the same at every step (Cho et al. 2014)
    attention   every vector of the source, weighed anew at each step (Bahdanau et al. 2015; Luong et al. 2015)

The attention is `attention.py`'s own, with one head: 2017 kept it, and dropped the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.errors import ConfigError, InputError
from clearhead.model.attention import Attention
from clearhead.model.config import AttentionConfig, SpecialTokens
from clearhead.model.config.checks import check_choice, check_counts, check_dropout
from clearhead.model.embedding import check_shape, check_vocabulary
from clearhead.model.heads import pool
from clearhead.model.masks import KeyPadding, Mask
from clearhead.model.recurrent import Cell, RecurrentState, State, cell_of, read_real, state_of
from clearhead.model.rows import Ids, Real, check_memory, real_tokens
from clearhead.model.transformer import Output

Reads = Literal["summary", "attention"]


@dataclass(frozen=True, kw_only=True)
class RecurrentTranslatorConfig:
    """A recurrent encoder-decoder; one table of tokens for both sides and for the scores.

    cell: `rnn`, `lstm` or `gru`. d_model: even, for the encoder gives half of it to each direction. n_layers: of each
    side. reads: what the decoder reads of the source, `summary` or `attention`. dropout: on what goes into the layers,
    between them, and into the scores (Zaremba et al. 2014).
    """

    vocab_size: int
    d_model: int
    n_layers: int = 1
    cell: Cell = "gru"
    reads: Reads = "attention"
    dropout: float = 0.0
    tokens: SpecialTokens = field(default_factory=SpecialTokens)

    def __post_init__(self) -> None:
        check_counts(self, "vocab_size", "d_model", "n_layers")
        check_choice(self, "cell", ("rnn", "lstm", "gru"))
        check_choice(self, "reads", ("summary", "attention"))
        check_dropout(self, "dropout")
        if self.d_model % 2:
            raise ConfigError(
                f"d_model={self.d_model} does not divide into two directions; choose an even one, "
                f"e.g. {self.d_model + 1}."
            )
        if self.n_layers > 256:
            raise ConfigError(f"RecurrentTranslatorConfig.n_layers={self.n_layers} is above 256; choose fewer.")


class RecurrentTranslator(nn.Module):
    """Source and target so far in, logits out.

        s_1 … s_n = both directions over the source       z = [→s_n; ←s_1]
        h_t = cell(E[y_{t−1}], h_{t−1})                   h_0 = tanh(W_0 z)
        r_t = z, or Attention(h_t, s_1 … s_n)             logits_t = E·tanh(W [r_t; h_t]) + b

    What r_t reads is not fed back into h (Luong et al. 2015 do so, `input feeding`): so that all steps of a known
    target are one call of the cell and one of attention.
    """

    def __init__(self, config: RecurrentTranslatorConfig) -> None:
        super().__init__()
        self.config = config
        width, layers = config.d_model, config.n_layers
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.encoder = cell_of(config.cell, width, width // 2, layers, config.dropout, bidirectional=True)
        self.begin = nn.Linear(width, layers * width)
        self.decoder = cell_of(config.cell, width, width, layers, config.dropout)
        self.attention = Attention(AttentionConfig(n_heads=1), width) if config.reads == "attention" else None
        self.join = nn.Linear(2 * width, width)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.tokens.weight, std=width**-0.5)

    def new_cache(self) -> RecurrentState:
        """An empty state, of the decoder."""
        return RecurrentState()

    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

    def encode(self, input_ids: Ids, *, attention_mask: Real | None = None) -> Float[Tensor, "B T C"]:
        """The source's vectors, from the left in the first half of the width and from the right in the other."""
        real, padded = real_tokens(input_ids, attention_mask)
        x = self._embedded(input_ids)
        return read_real(self.encoder, x, real, None)[0] if padded else self.encoder(x)[0]

    def forward(
        self,
        input_ids: Ids | None,
        decoder_input_ids: Int[Tensor, "B Tt"] | None = None,
        *,
        attention_mask: Real | None = None,
        decoder_attention_mask: Bool[Tensor, "B Tt"] | Int[Tensor, "B Tt"] | None = None,
        memory: Float[Tensor, "B T C"] | None = None,
        cache: RecurrentState | None = None,
        last_only: bool = False,
    ) -> Output:
        """Read the source, and the target so far. memory: `encode`'s result, so that the source is read once;
        `attention_mask` still says which of it is padding. cache: the decoder's state, read and replaced; padding of
        the target leaves it as it was. last_only: logits of the last position only.
        """
        if decoder_input_ids is None:
            raise InputError("a translator needs the target so far: give decoder_input_ids.")
        real, padded = real_tokens(decoder_input_ids, decoder_attention_mask)
        if memory is None:
            if input_ids is None:
                raise InputError("a translator needs the source: give input_ids, or memory from encode().")
            memory = self.encode(input_ids, attention_mask=attention_mask)
        check_memory(memory, decoder_input_ids.shape[0], self.config.d_model)
        check_shape("attention_mask", attention_mask, memory.shape[:2])
        everything = torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
        source = attention_mask.bool() if attention_mask is not None else everything
        summary = self._summary(memory, source)
        state = state_of(cache, self.decoder, decoder_input_ids.shape[0])
        before = state if state is not None else self._first(summary)
        x = self._embedded(decoder_input_ids)
        h, after = read_real(self.decoder, x, real, before) if padded else self.decoder(x, before)
        if cache is not None:
            cache.value, cache.length = after, cache.length + decoder_input_ids.shape[1]
        if self.attention is not None:
            mask = Mask(() if bool(source.all()) else (KeyPadding(source),))
            read: Tensor = self.attention(
                h, mask=mask, memory=memory, cache=cache.source if cache is not None else None
            )
        else:
            read = summary[:, None].expand_as(h)
        hidden = torch.tanh(self.join(torch.cat((read, h), dim=-1)))
        scored = hidden[:, -1:] if last_only else hidden
        return Output(hidden, F.linear(self._dropped(scored), self.tokens.weight, self.bias), memory=memory)

    def _embedded(self, ids: Int[Tensor, "B n"]) -> Float[Tensor, "B n C"]:
        check_vocabulary(ids, self.config.vocab_size)
        return self._dropped(self.tokens(ids))

    def _dropped(self, x: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        return F.dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def _summary(self, memory: Float[Tensor, "B T C"], real: Bool[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """What each direction ended in: at the last token from the left, at the first one from the right."""
        onward, back = memory.chunk(2, dim=2)
        return torch.cat((pool(onward, real, "last"), pool(back, real, "first")), dim=1)

    def _first(self, summary: Float[Tensor, "B C"]) -> State:
        """The state that the decoder begins with, a vector for each of its layers; an LSTM's cell begins empty."""
        begin = torch.tanh(self.begin(summary)).unflatten(1, (self.config.n_layers, -1))
        state = begin.transpose(0, 1).contiguous()  # (layers, B, C)
        return (state, torch.zeros_like(state)) if self.config.cell == "lstm" else state
