"""Heads, as choices: what a model's vectors are turned into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clearhead.errors import ConfigError
from clearhead.model.config.checks import check_choice, check_dropout, check_numbers
from clearhead.model.config.layers import ACTIVATIONS, Activation, LayerNorm, Norm

Pooling = Literal["first", "last", "mean", "max"]
"""How a text's tokens become one vector; padding is never read. `last` is the last token that is not padding."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """Logits over the vocabulary at every position: cap(W h · scale + b); `tied` means W is the embedding table."""

    tied: bool = True
    bias: bool = False
    scale: float | None = None
    softcap: float | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "scale", "softcap")


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel:
    """BERT's head: logits = E·N(act(W h + b)) + c."""

    activation: Activation = "gelu"
    norm: Norm = field(default_factory=lambda: LayerNorm(eps=1e-12))
    tied: bool = True

    def __post_init__(self) -> None:
        check_choice(self, "activation", ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class SequenceClassification:
    """One label for the text. pooling: what is read (`pooler`: the model's own; `eos`: the last end token's vector).
    hidden: a dense layer first.

    In an encoder-decoder the decoder reads the source again, one place on, behind its start token (BART, T5), or, where
    it is `wrapped`, behind the source's own last token (mBART).
    """

    labels: tuple[str, ...]
    pooling: Pooling | Literal["pooler", "eos"] = "first"
    hidden: Activation | None = None
    bias: bool = True
    wrapped: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_dropout(self, "dropout")
        check_choice(self, "pooling", ("first", "last", "mean", "max", "pooler", "eos"))
        if self.hidden is not None:
            check_choice(self, "hidden", ACTIVATIONS)
        if not self.labels:
            raise ConfigError("SequenceClassification.labels is empty; name at least one label.")


@dataclass(frozen=True, kw_only=True)
class TokenClassification:
    """One label for each token."""

    labels: tuple[str, ...]
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_dropout(self, "dropout")
        if not self.labels:
            raise ConfigError("TokenClassification.labels is empty; name at least one label.")


@dataclass(frozen=True, kw_only=True)
class SentenceEmbedding:
    """One vector for the text (Reimers & Gurevych 2019); `normalise` gives it length 1."""

    pooling: Pooling = "mean"
    normalise: bool = True

    def __post_init__(self) -> None:
        check_choice(self, "pooling", ("first", "last", "mean", "max"))


Head = LanguageModel | MaskedLanguageModel | SequenceClassification | TokenClassification | SentenceEmbedding
