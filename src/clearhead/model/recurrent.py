"""What the Transformer replaced: RNN, LSTM and GRU language models, behind the same call.

One state is carried from token to token; nothing is read again. The lab measures what they forget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from clearhead.errors import ConfigError, InputError
from clearhead.model.cache import LayerCache
from clearhead.model.config.checks import check_choice, check_counts, check_dropout
from clearhead.model.embedding import check_vocabulary
from clearhead.model.rows import real_tokens
from clearhead.model.transformer import Output

Cell = Literal["rnn", "lstm", "gru"]
State = Float[Tensor, "L B Ch"] | tuple[Float[Tensor, "L B Ch"], Float[Tensor, "L B Ch"]]


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """A recurrent language model.

    cell: `rnn` (Elman 1990), `lstm` (Hochreiter & Schmidhuber 1997) or `gru` (Cho et al. 2014).
    """

    vocab_size: int
    d_model: int
    n_layers: int = 1
    cell: Cell = "lstm"
    tied: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "vocab_size", "d_model", "n_layers")
        check_choice(self, "cell", ("rnn", "lstm", "gru"))
        check_dropout(self, "dropout")
        if self.n_layers > 256:
            raise ConfigError(f"RecurrentConfig.n_layers={self.n_layers} is above 256; choose fewer.")


def cell_of(
    cell: Cell, d_in: int, d_out: int, n_layers: int, dropout: float, *, bidirectional: bool = False
) -> nn.RNNBase:
    """PyTorch's layers of this cell; dropout is between them, so there is none where there is one layer."""
    kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
    between = dropout if n_layers > 1 else 0.0
    return kind(d_in, d_out, n_layers, batch_first=True, dropout=between, bidirectional=bidirectional)


class RecurrentState:
    """What has been read so far, in one state; the recurrent models' place for a cache."""

    def __init__(self) -> None:
        self.length = 0
        self.value: State | None = None
        self.source = LayerCache()
        """The source's keys and values, of a translator with attention."""

    def select(self, rows: Int[Tensor, " n"]) -> None:
        """Keep these rows of the batch, in this order (beam search)."""
        if isinstance(self.value, tuple):
            self.value = self.value[0][:, rows], self.value[1][:, rows]
        elif self.value is not None:
            self.value = self.value[:, rows]
        self.source.select(rows)


class RecurrentLanguageModel(nn.Module):
    """Ids in, logits out: logits_t = E·h_t with h_t = cell(E[id_t], h_{t−1}); untied, another matrix for E."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.cell = cell_of(config.cell, config.d_model, config.d_model, config.n_layers, config.dropout)
        self.head = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        nn.init.normal_(self.tokens.weight, std=config.d_model**-0.5)

    def new_cache(self) -> RecurrentState:
        """An empty state."""
        return RecurrentState()

    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        *,
        attention_mask: Bool[Tensor, "B T"] | Int[Tensor, "B T"] | None = None,
        cache: RecurrentState | None = None,
        last_only: bool = False,
    ) -> Output:
        """Read the ids from left to right. attention_mask: True (or 1) at tokens; padding leaves the state as it was.
        cache: the state so far, read and replaced. last_only: logits of the last position only.
        """
        real, padded = real_tokens(input_ids, attention_mask)
        check_vocabulary(input_ids, self.config.vocab_size)
        x: Tensor = self.tokens(input_ids)
        before = state_of(cache, self.cell, input_ids.shape[0])
        hidden, state = read_real(self.cell, x, real, before) if padded else self.cell(x, before)
        if cache is not None:
            cache.value, cache.length = state, cache.length + input_ids.shape[1]
        table = self.tokens.weight if self.head is None else self.head.weight
        return Output(hidden, F.linear(hidden[:, -1:] if last_only else hidden, table))


def state_of(cache: RecurrentState | None, cell: nn.RNNBase, batch: int) -> State | None:
    """The state that the cache holds. Raises InputError where another model, or another batch, left it there."""
    if cache is None:
        return None
    if not isinstance(cache, RecurrentState):
        raise InputError(f"cache is a {type(cache).__name__}; begin one with this model's new_cache().")
    if cache.value is None:
        return None
    pair = isinstance(cache.value, tuple)
    shape = tuple((cache.value[0] if isinstance(cache.value, tuple) else cache.value).shape)
    if pair != isinstance(cell, nn.LSTM) or shape[::2] != (cell.num_layers, cell.hidden_size):
        raise InputError("the cache holds the state of another model; begin one with this model's new_cache().")
    if shape[1] != batch:
        raise InputError(
            f"the cache holds a batch of {shape[1]} and the ids are a batch of {batch}; "
            "begin one with new_cache() for a new batch."
        )
    return cache.value


def read_real(
    cell: nn.RNNBase, x: Float[Tensor, "B T C"], real: Bool[Tensor, "B T"], before: State | None
) -> tuple[Float[Tensor, "B T _"], State]:
    """The cell over the real tokens alone: brought to the front, read as a packed sequence, and put back.

    Padding leaves the state as it was, and its own vectors are 0. Read from both sides, each begins at its first token.
    """
    order = (~real).long().argsort(dim=1, stable=True)[..., None]
    lengths = real.sum(dim=1)
    packed = pack_padded_sequence(
        x.gather(1, order.expand_as(x)), lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
    )
    out, after = cell(packed, before)
    front, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
    hidden = torch.zeros_like(front).scatter(1, order.expand_as(front), front).masked_fill(~real[..., None], 0.0)
    read = (lengths > 0)[None, :, None]  # a text of nothing but padding: the cell read one of it, in vain
    if isinstance(after, tuple):
        h, c = before if isinstance(before, tuple) else (torch.zeros_like(after[0]), torch.zeros_like(after[1]))
        return hidden, (torch.where(read, after[0], h), torch.where(read, after[1], c))
    return hidden, torch.where(read, after, before if isinstance(before, Tensor) else torch.zeros_like(after))
