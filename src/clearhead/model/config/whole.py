"""The whole model, as a choice: an embedding, one or two stacks, a head, and how weights begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clearhead.errors import ConfigError
from clearhead.model.config.checks import check_choice, check_counts, check_dropout, check_numbers
from clearhead.model.config.heads import Head, LanguageModel, SequenceClassification
from clearhead.model.config.layers import ACTIVATIONS, Activation, Norm, StackConfig
from clearhead.model.config.positions import Sinusoidal


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """From ids to vectors: E[id]·scale + position + token type, then a norm.

    width: the table's own width where it is not d_model (ALBERT, ELECTRA); a projection follows. project: it follows
    even where the widths are equal (ALBERT). projected: `in`, as W x + b after the norm; `around`, as W x before the
    position is added, and the last vectors are led back by W' h, for the head to read (OPT 350m).
    scale: the factor, e.g. √d_model, rounded to the table's dtype as Gemma does. token_types: how many (BERT: 2).
    """

    width: int | None = None
    project: bool = False
    projected: Literal["in", "around"] = "in"
    scale: float | None = None
    norm: Norm | None = None
    token_types: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "width")
        check_choice(self, "projected", ("in", "around"))
        check_counts(self, "token_types", at_least=0)
        check_numbers(self, "scale")
        check_dropout(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class NormalInit:
    """Every matrix from N(0, std²). scale_residual: what writes to the residual stream gets std/√(2·layers) (GPT-2)."""

    std: float = 0.02
    scale_residual: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "std")


@dataclass(frozen=True, kw_only=True)
class XavierInit:
    """Matrices uniform in ±√(6/(in+out)) (Glorot & Bengio 2010); embeddings from N(0, 1/d_model) (Vaswani 2017)."""


@dataclass(frozen=True, kw_only=True)
class T5Init:
    """Each matrix from N(0, factor²/fan_in), q also by 1/√d_head since T5 scores by q·k alone (Raffel et al. 2020)."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "factor")


Init = NormalInit | XavierInit | T5Init


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids with a meaning to the model itself; eos may be several."""

    pad: int | None = None
    bos: int | None = None
    eos: tuple[int, ...] = ()
    decoder_start: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.eos, tuple) or not all(isinstance(token, int) for token in self.eos):
            raise ConfigError(f"SpecialTokens.eos={self.eos!r} is no tuple of ids; write (2,) for one.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole model: an embedding, one or two stacks, and a head.

    vocab_size: V. d_model: C, the width of the residual stream. context: the longest text that positions reach.
    An encoder alone reads both ways (BERT); a decoder alone reads what came before (GPT); both together translate (T5).
    pooler: a dense layer with this activation over the first token (BERT), given as `output.pooled`.
    shared_embedding: encoder and decoder have one table. decoder_vocab_size: how many tokens the decoder knows, where
    its table is its own and of another language (Marian).
    """

    vocab_size: int
    d_model: int
    context: int
    encoder: StackConfig | None = None
    decoder: StackConfig | None = None
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    head: Head | None = None
    pooler: Activation | None = None
    shared_embedding: bool = True
    decoder_vocab_size: int | None = None
    tokens: SpecialTokens = field(default_factory=SpecialTokens)
    init: Init = field(default_factory=NormalInit)

    def __post_init__(self) -> None:
        check_counts(self, "vocab_size", "d_model", "context", "decoder_vocab_size")
        if self.pooler is not None:
            check_choice(self, "pooler", ACTIVATIONS)
        if isinstance(self.head, LanguageModel) and self.head.tied and self.table_width != self.d_last:
            raise ConfigError(
                f"a tied head scores against the embedding, which is {self.table_width} wide and not "
                f"d_model={self.d_model}; "
                "choose LanguageModel(tied=False), or leave EmbeddingConfig.width out."
            )
        if self.encoder is None and self.decoder is None:
            raise ConfigError("ModelConfig has neither an encoder nor a decoder; give at least one StackConfig.")
        for stack in self.stacks:
            for layer in range(stack.n_layers if isinstance(stack.attention, tuple) else 1):
                width = stack.attention_of(layer).head_width(self.d_model)
                rotary = stack.rotary(layer)
                if rotary is not None:
                    rotary.width(width)
            if isinstance(stack.position, Sinusoidal) and self.sum_width % 2:
                raise ConfigError(f"sinusoidal positions need an even width; d_model={self.d_model} is odd.")
            if isinstance(stack.position, Sinusoidal) and stack.position.endpoint and self.sum_width < 4:
                raise ConfigError("sinusoidal positions with an endpoint need two waves or more; choose d_model=4.")
        if self.decoder is not None:
            has_cross = self.decoder.cross_attention is not None
            if self.encoder is not None and not has_cross:
                raise ConfigError("a decoder beside an encoder needs StackConfig.cross_attention to read it.")
            if self.encoder is not None and self.d_last != self.d_model:
                raise ConfigError("an encoder is read at d_model; EmbeddingConfig.projected='around' is for one stack.")
            if self.encoder is None and has_cross:
                raise ConfigError("StackConfig.cross_attention reads an encoder, and ModelConfig.encoder is None.")
            if has_cross:
                assert self.decoder.cross_attention is not None
                self.decoder.cross_attention.head_width(self.d_model)
        elif self.encoder is not None and self.encoder.cross_attention is not None:
            raise ConfigError("an encoder has nothing to cross-attend to; leave cross_attention out.")
        if isinstance(self.head, SequenceClassification) and self.head.pooling == "pooler" and self.pooler is None:
            raise ConfigError("the head reads the pooler, and ModelConfig.pooler is None; name its activation.")
        if isinstance(self.head, SequenceClassification) and self.head.pooling == "eos" and not self.tokens.eos:
            raise ConfigError("the head reads the end token, and SpecialTokens.eos names none; give its id.")
        if self.target_vocab_size != self.vocab_size and (self.shared_embedding or len(self.stacks) < 2):
            raise ConfigError(
                f"decoder_vocab_size={self.decoder_vocab_size} is not vocab_size={self.vocab_size}, and encoder and "
                "decoder have one table; choose shared_embedding=False in an encoder-decoder, or leave it out."
            )

    @property
    def stacks(self) -> tuple[StackConfig, ...]:
        """The stacks there are, encoder first."""
        return tuple(stack for stack in (self.encoder, self.decoder) if stack is not None)

    @property
    def target_vocab_size(self) -> int:
        """How many tokens the decoder knows, and a language model head scores."""
        return self.decoder_vocab_size if self.decoder_vocab_size is not None else self.vocab_size

    @property
    def table_width(self) -> int:
        """The width of the embedding's table."""
        return self.embedding.width if self.embedding.width is not None else self.d_model

    @property
    def sum_width(self) -> int:
        """The width at which token, position and type are added."""
        return self.table_width if self.embedding.projected == "in" else self.d_model

    @property
    def d_last(self) -> int:
        """The width of the last vectors, that the head reads: d_model, unless they are projected back."""
        return self.d_model if self.embedding.projected == "in" else self.table_width

    @property
    def architecture(self) -> Literal["encoder", "decoder", "encoder-decoder"]:
        """Which of the three it is."""
        if self.encoder is not None and self.decoder is not None:
            return "encoder-decoder"
        return "encoder" if self.encoder is not None else "decoder"
