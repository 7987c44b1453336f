"""What the Transformer replaced: RNN, LSTM and GRU language models, behind the same call.

One state is carried from token to token; nothing is read again. The lab measures what they forget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearhead.errors import ConfigError, InputError
from clearhead.model.config.checks import check_choice, check_counts, check_dropout
from clearhead.model.transformer import Output

Cell = Literal["rnn", "lstm", "gru"]


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


class RecurrentState:
    """What has been read so far, in one state; the recurrent models' place for a cache."""

    def __init__(self) -> None:
        self.length = 0
        self.value: Tensor | tuple[Tensor, Tensor] | None = None


class RecurrentLanguageModel(nn.Module):
    """Ids in, logits out: logits_t = E·h_t with h_t = cell(E[id_t], h_{t−1}); untied, another matrix for E."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[config.cell]
        dropout = config.dropout if config.n_layers > 1 else 0.0
        self.cell = kind(config.d_model, config.d_model, config.n_layers, batch_first=True, dropout=dropout)
        self.head = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        nn.init.normal_(self.tokens.weight, std=config.d_model**-0.5)

    def new_cache(self) -> RecurrentState:
        """An empty state."""
        return RecurrentState()

    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

    def forward(
        self, input_ids: Int[Tensor, "B T"], *, cache: RecurrentState | None = None, last_only: bool = False
    ) -> Output:
        """Read the ids from left to right. cache: the state so far, read and replaced. last_only: the last logits."""
        if input_ids.ndim != 2 or input_ids.shape[1] == 0:
            raise InputError(f"ids of shape {tuple(input_ids.shape)} are not a batch of texts; give (batch, tokens).")
        hidden: Float[Tensor, "B T C"]
        hidden, state = self.cell(self.tokens(input_ids), cache.value if cache is not None else None)
        if cache is not None:
            cache.value, cache.length = state, cache.length + input_ids.shape[1]
        if last_only:
            hidden = hidden[:, -1:]
        table = self.tokens.weight if self.head is None else self.head.weight
        return Output(hidden, F.linear(hidden, table))
