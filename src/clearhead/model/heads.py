"""Heads. What the last vectors are turned into: the next word, the missing word, a label, a point in space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clearhead.model.config import (
    LanguageModel,
    MaskedLanguageModel,
    ModelConfig,
    Pooling,
    SentenceEmbedding,
    SequenceClassification,
    TokenClassification,
)
from clearhead.model.feedforward import ACTIVATIONS
from clearhead.model.norms import Norm

Hidden = Float[Tensor, "B T C"]
Real = Bool[Tensor, "B T"]


def pool(hidden: Hidden, real: Real, how: Pooling) -> Float[Tensor, "B C"]:
    """One vector for each text, from its real tokens only. A text of nothing but padding gives zeros."""
    if how in ("first", "last"):
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        place = real.int().argmax(dim=1) if how == "first" else (places * real).argmax(dim=1)
        return hidden[rows, place].masked_fill(~real.any(dim=1, keepdim=True), 0.0)
    if how == "max":
        return hidden.masked_fill(~real[..., None], -torch.inf).amax(dim=1).nan_to_num(neginf=0.0)
    count = real.sum(dim=1, keepdim=True).clamp(min=1)
    return (hidden * real[..., None]).sum(dim=1) / count


class LanguageModelHead(nn.Module):
    """Logits of every token of the vocabulary: cap(W(h·scale) + b). Tied, W is the embedding table."""

    def __init__(self, choice: LanguageModel, config: ModelConfig) -> None:
        super().__init__()
        self.choice = choice
        vocab_size = config.target_vocab_size
        self.weight = None if choice.tied else nn.Parameter(torch.zeros(vocab_size, config.d_last))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if choice.bias else None

    def forward(self, hidden: Hidden, table: Float[Tensor, "V C"]) -> Float[Tensor, "B T V"]:
        """The logits; `table` is the embedding's."""
        if self.choice.scale is not None:
            hidden = hidden * self.choice.scale
        logits = F.linear(hidden, table if self.weight is None else self.weight, self.bias)
        cap = self.choice.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)


class MaskedLanguageModelHead(nn.Module):
    """BERT's: E·N(act(W h + b)) + c (Devlin et al. 2019)."""

    def __init__(self, choice: MaskedLanguageModel, config: ModelConfig) -> None:
        super().__init__()
        width = config.table_width
        self.dense = nn.Linear(config.d_last, width)
        self.act = ACTIVATIONS[choice.activation]
        self.norm = Norm(choice.norm, width)
        self.weight = None if choice.tied else nn.Parameter(torch.zeros(config.vocab_size, width))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Hidden, table: Float[Tensor, "V width"]) -> Float[Tensor, "B T V"]:
        """The logits; `table` is the embedding's."""
        x = self.norm(self.act(self.dense(hidden)))
        return F.linear(x, table if self.weight is None else self.weight, self.bias)


class Pooler(nn.Module):
    """BERT's pooler: act(W h₀ + b), h₀ the first token's vector."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.pooler is not None
        self.dense = nn.Linear(config.d_last, config.d_last)
        self.act = ACTIVATIONS[config.pooler]

    def forward(self, hidden: Hidden, real: Real) -> Float[Tensor, "B C"]:
        """One vector for each text."""
        return self.act(self.dense(pool(hidden, real, "first")))


class SequenceClassificationHead(nn.Module):
    """A logit for each label, from one vector for the text."""

    def __init__(self, choice: SequenceClassification, config: ModelConfig) -> None:
        super().__init__()
        self.choice = choice
        self.dense = nn.Linear(config.d_last, config.d_last) if choice.hidden is not None else None
        self.act = ACTIVATIONS[choice.hidden] if choice.hidden is not None else None
        self.classify = nn.Linear(config.d_last, len(choice.labels), bias=choice.bias)

    def forward(self, hidden: Hidden, real: Real, pooled: Float[Tensor, "B C"] | None) -> Float[Tensor, "B L"]:
        """The logits of the labels."""
        if self.choice.pooling == "pooler":
            assert pooled is not None
            x = pooled
        else:
            x = pool(hidden, real, "last" if self.choice.pooling == "eos" else self.choice.pooling)
        if self.training and self.choice.dropout:
            x = F.dropout(x, self.choice.dropout)
        if self.dense is not None and self.act is not None:
            x = self.act(self.dense(x))
            if self.training and self.choice.dropout:
                x = F.dropout(x, self.choice.dropout)
        logits: Tensor = self.classify(x)
        return logits


class TokenClassificationHead(nn.Module):
    """A logit for each label, at each token."""

    def __init__(self, choice: TokenClassification, config: ModelConfig) -> None:
        super().__init__()
        self.choice = choice
        self.classify = nn.Linear(config.d_last, len(choice.labels))

    def forward(self, hidden: Hidden) -> Float[Tensor, "B T L"]:
        """The logits of the labels."""
        if self.training and self.choice.dropout:
            hidden = F.dropout(hidden, self.choice.dropout)
        logits: Tensor = self.classify(hidden)
        return logits


class SentenceEmbeddingHead(nn.Module):
    """One vector for the text, of length 1 where the choice says so. It has no weights."""

    def __init__(self, choice: SentenceEmbedding) -> None:
        super().__init__()
        self.choice = choice

    def forward(self, hidden: Hidden, real: Real) -> Float[Tensor, "B C"]:
        """The texts' vectors."""
        x = pool(hidden, real, self.choice.pooling)
        return F.normalize(x, dim=-1) if self.choice.normalise else x


HeadModule = (
    LanguageModelHead
    | MaskedLanguageModelHead
    | SequenceClassificationHead
    | TokenClassificationHead
    | SentenceEmbeddingHead
)


def build_head(config: ModelConfig) -> HeadModule | None:
    """The module of the head that the config chose."""
    match config.head:
        case None:
            return None
        case LanguageModel():
            return LanguageModelHead(config.head, config)
        case MaskedLanguageModel():
            return MaskedLanguageModelHead(config.head, config)
        case SequenceClassification():
            return SequenceClassificationHead(config.head, config)
        case TokenClassification():
            return TokenClassificationHead(config.head, config)
        case SentenceEmbedding():
            return SentenceEmbeddingHead(config.head)
