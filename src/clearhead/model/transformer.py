"""The three architectures. An Encoder reads both ways, a Decoder reads what came before, an EncoderDecoder has both.

All are made of the one block. Each is called on ids and returns an `Output`, whose `logits` (or `hidden`, where there
is no head) is the result. `build(config)` gives the one that a config describes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.errors import ConfigError, InputError
from clearhead.model.cache import Cache, all_or_nothing
from clearhead.model.config import ModelConfig, SequenceClassification
from clearhead.model.embedding import check_shape
from clearhead.model.heads import (
    LanguageModelHead,
    MaskedLanguageModelHead,
    Pooler,
    SentenceEmbeddingHead,
    SequenceClassificationHead,
    TokenClassificationHead,
    build_head,
)
from clearhead.model.initialise import NothingDrawn, initialise
from clearhead.model.masks import Causal, Documents, KeyPadding, Mask, Prefix, Rule
from clearhead.model.positions import check_context
from clearhead.model.rows import (
    Ids,
    Real,
    check_documents,
    check_gaps,
    check_memory,
    check_prefix,
    end_tokens,
    lengths_of,
    positions_of,
    prefix_columns,
    read_again,
    real_tokens,
)
from clearhead.model.stack import Stack


@dataclass(frozen=True, eq=False)
class Output:
    """What a model gives back. Fields that the model or the call does not have are None.

    hidden: the last vectors, after the final norm. logits: (B, T, V), (B, T, labels) or (B, labels), by the head.
    embedding: the text's vector, of a sentence embedder. pooled: the pooler's. hidden_states: the stream after the
    embedding and after each block, on request. memory: the encoder's last vectors, in an encoder-decoder.
    """

    hidden: Float[Tensor, "B T C"]
    logits: Float[Tensor, " B *rest"] | None = None
    embedding: Float[Tensor, "B C"] | None = None
    pooled: Float[Tensor, "B C"] | None = None
    hidden_states: tuple[Float[Tensor, "B _ _"], ...] = ()
    memory: Float[Tensor, "B Tm C"] | None = None


class Transformer(nn.Module):
    """What the three share: a config, a head, and how a head is read. Use Encoder, Decoder or EncoderDecoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.head = build_head(config)
        self.pooler = Pooler(config) if config.pooler is not None else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return next(self.parameters()).dtype

    def n_parameters(self) -> int:
        """How many numbers are trained; a tied table counts once."""
        return sum(p.numel() for p in self.parameters())

    def _finish(
        self,
        stack: Stack,
        hidden: Float[Tensor, "B T C"],
        ids: Tensor | None,
        real: Bool[Tensor, "B T"],
        states: tuple[Tensor, ...],
        memory: Tensor | None = None,
        last_only: bool = False,
    ) -> Output:
        """What the head makes of the last vectors. ids: those among which it looks for the end token."""
        pooled = self.pooler(hidden, real) if self.pooler is not None else None
        logits = embedding = None
        match self.head:
            case LanguageModelHead() | MaskedLanguageModelHead():
                logits = self.head(hidden[:, -1:] if last_only else hidden, stack.embedding.tokens.weight)
            case SequenceClassificationHead():
                if self.head.choice.pooling == "eos":
                    real = end_tokens(ids, real, self.config.tokens.eos)
                logits = self.head(hidden, real, pooled)
            case TokenClassificationHead():
                logits = self.head(hidden[:, -1:] if last_only else hidden)
            case SentenceEmbeddingHead():
                embedding = self.head(hidden, real)
        return Output(hidden, logits, embedding, pooled, states, memory)


class Encoder(Transformer):
    """Every token reads every token (Devlin et al. 2019)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        assert config.encoder is not None
        self.encoder = Stack(config, config.encoder, bidirectional=True)
        initialise(self, config)

    def forward(
        self,
        input_ids: Ids,
        *,
        attention_mask: Real | None = None,
        documents: Ids | None = None,
        token_type_ids: Ids | None = None,
        positions: Ids | None = None,
        keep_hidden: bool = False,
    ) -> Output:
        """Read the texts. attention_mask: True (or 1) at tokens, False at padding. documents: which of several packed
        texts each token belongs to; they do not read one another. positions: counted over real tokens, unless given.

        Raises InputError for what does not fit the model or the ids, for padding between a text's tokens where the
        model measures distance in columns (a window, ALiBi, T5's bias), and for a document that returns after another;
        ContextError past the learned positions.
        """
        real, padded = real_tokens(input_ids, attention_mask)
        check_documents(documents, real)
        check_gaps(self.encoder.config, real, documents)
        check_shape("positions", positions, input_ids.shape, whole=True)
        mask = Mask(_rules(real if padded else None, documents, None))
        if positions is None:
            positions = positions_of(real, documents)
        hidden, states = self.encoder(
            input_ids,
            positions,
            mask,
            token_type_ids=token_type_ids,
            lengths=lengths_of(positions, documents),
            keep_hidden=keep_hidden,
        )
        return self._finish(self.encoder, hidden, input_ids, real, states)


class Decoder(Transformer):
    """Every token reads itself and what came before (Radford et al. 2018)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        assert config.decoder is not None
        self.decoder = Stack(config, config.decoder, bidirectional=False)
        initialise(self, config)

    def forward(
        self,
        input_ids: Ids,
        *,
        attention_mask: Real | None = None,
        documents: Ids | None = None,
        prefix: Int[Tensor, " B"] | None = None,
        token_type_ids: Ids | None = None,
        positions: Ids | None = None,
        cache: Cache | None = None,
        keep_hidden: bool = False,
        last_only: bool = False,
    ) -> Output:
        """Read the texts. prefix: the first so many tokens are read by all (prefix language model). cache: earlier
        tokens, read and appended to; `attention_mask` then speaks of the new ids alone; a call that raises leaves it
        as it was. last_only: logits of the last position only. The rest as in `Encoder`.
        """
        real, padded = real_tokens(input_ids, attention_mask)
        check_documents(documents, real)
        check_prefix(prefix, input_ids.shape[0])
        check_shape("positions", positions, input_ids.shape, whole=True)
        _check_cache(cache, self.decoder, input_ids.shape[0])
        if cache is not None and (documents is not None or (prefix is not None and cache.length)):
            raise InputError("packed documents and prefixes are read in one call; leave the cache out.")
        if cache is not None and self.decoder.turns_by_length and (prefix is not None or token_type_ids is not None):
            raise InputError(
                "prefixes and token types are not kept, and this model's rotary scaling reads the text again as it "
                "grows; leave the cache out."
            )
        if positions is None:
            positions = cache.next_positions(real) if cache is not None else positions_of(real, documents)
        new, offset, everyone = input_ids.shape[1], 0, real
        with all_or_nothing(cache):
            if cache is not None:
                if self.decoder.has_outgrown(cache, positions):
                    input_ids, real, positions = cache.take_back(input_ids, real, positions)
                offset, everyone = cache.length, cache.extend(input_ids, real, positions)
                padded = not bool(everyone.all())
            check_gaps(self.decoder.config, everyone, documents)
            order = Prefix(prefix_columns(prefix, real)) if prefix is not None else Causal()
            mask = Mask(_rules(everyone if padded else None, documents, order), offset=offset)
            hidden, states = self.decoder(
                input_ids,
                positions,
                mask,
                token_type_ids=token_type_ids,
                cache=cache,
                lengths=lengths_of(positions, documents),
                keep_hidden=keep_hidden,
            )
        states = tuple(state[:, -new:] for state in states)
        ids, real = input_ids[:, -new:], real[:, -new:]
        return self._finish(self.decoder, hidden[:, -new:], ids, real, states, last_only=last_only)

    def new_cache(self) -> Cache:
        """An empty cache for this model."""
        return Cache(self.decoder.config.n_layers)


class EncoderDecoder(Transformer):
    """The encoder reads the source; the decoder writes the target, reading both (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        assert config.encoder is not None and config.decoder is not None
        self.encoder = Stack(config, config.encoder, bidirectional=True)
        tokens = self.encoder.embedding.tokens if config.shared_embedding else None
        self.decoder = Stack(config, config.decoder, bidirectional=False, tokens=tokens)
        initialise(self, config)

    def encode(self, input_ids: Ids, *, attention_mask: Real | None = None) -> Float[Tensor, "B T C"]:
        """The encoder's last vectors: the memory that the decoder reads."""
        return self._encode(input_ids, attention_mask, False)[0]

    def _encode(
        self, input_ids: Ids, attention_mask: Real | None, keep_hidden: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        real, padded = real_tokens(input_ids, attention_mask)
        check_gaps(self.encoder.config, real)
        mask = Mask(_rules(real if padded else None, None, None))
        memory, states = self.encoder(input_ids, positions_of(real, None), mask, keep_hidden=keep_hidden)
        return memory, states

    def forward(
        self,
        input_ids: Ids | None,
        decoder_input_ids: Int[Tensor, "B Tt"] | None = None,
        *,
        attention_mask: Real | None = None,
        decoder_attention_mask: Bool[Tensor, "B Tt"] | Int[Tensor, "B Tt"] | None = None,
        memory: Float[Tensor, "B T C"] | None = None,
        cache: Cache | None = None,
        keep_hidden: bool = False,
        last_only: bool = False,
    ) -> Output:
        """Read the source, and the target so far; a classifier needs no target, it reads the source again.

        memory: `encode`'s result, so that the source is read once; `attention_mask` still says which of it is padding.
        The rest as in `Decoder`; `hidden_states` has the encoder's states first.
        """
        states: tuple[Tensor, ...] = ()
        head, start = self.config.head, self.config.tokens.decoder_start
        if decoder_input_ids is None:
            if not isinstance(head, SequenceClassification):
                raise InputError("an encoder-decoder needs the target so far: give decoder_input_ids.")
            again = read_again(input_ids, attention_mask, start, wrapped=head.wrapped)
            decoder_input_ids, decoder_attention_mask = again
        real, padded = real_tokens(decoder_input_ids, decoder_attention_mask)
        _check_cache(cache, self.decoder, decoder_input_ids.shape[0])
        positions = cache.next_positions(real) if cache is not None else positions_of(real, None)
        if memory is None:
            if input_ids is None:
                raise InputError("an encoder-decoder needs the source: give input_ids, or memory from encode().")
            memory, states = self._encode(input_ids, attention_mask, keep_hidden)
        check_memory(memory, decoder_input_ids.shape[0], self.config.d_model)
        check_shape("attention_mask", attention_mask, memory.shape[:2])
        source = attention_mask.bool() if attention_mask is not None else None
        if source is not None and bool(source.all()):
            source = None
        memory_mask = Mask(_rules(source, None, None))
        new, offset, everyone = decoder_input_ids.shape[1], 0, real
        with all_or_nothing(cache):
            if cache is not None:
                if self.decoder.has_outgrown(cache, positions):
                    decoder_input_ids, real, positions = cache.take_back(decoder_input_ids, real, positions)
                offset, everyone = cache.length, cache.extend(decoder_input_ids, real, positions)
                padded = not bool(everyone.all())
            check_gaps(self.decoder.config, everyone)
            mask = Mask(_rules(everyone if padded else None, None, Causal()), offset=offset)
            hidden, more = self.decoder(
                decoder_input_ids,
                positions,
                mask,
                memory=memory,
                memory_mask=memory_mask,
                cache=cache,
                keep_hidden=keep_hidden,
            )
        states = (*states, *(state[:, -new:] for state in more))
        return self._finish(self.decoder, hidden[:, -new:], input_ids, real[:, -new:], states, memory, last_only)

    def new_cache(self) -> Cache:
        """An empty cache for this model's decoder."""
        return Cache(self.decoder.config.n_layers)


def build(config: ModelConfig) -> Encoder | Decoder | EncoderDecoder:
    """The model that the config describes, its weights freshly drawn (on torch's default device and generator).

    Raises ConfigError where it is larger than the memory.
    """
    try:
        match config.architecture:
            case "encoder":
                return Encoder(config)
            case "decoder":
                return Decoder(config)
            case "encoder-decoder":
                return EncoderDecoder(config)
    except (RuntimeError, MemoryError) as error:  # torch has no narrower class for this on the CPU
        if not _is_too_large(error):
            raise
        size = "is larger than torch can count"
        if "calculation overflowed" not in str(error):
            n = skeleton(config).n_parameters()
            size = f"has {n:,} parameters, {n * torch.get_default_dtype().itemsize / 2**30:,.1f} GiB"
        raise ConfigError(f"the model {size}, and the memory does not hold it; choose smaller sizes.") from error


def _is_too_large(error: Exception) -> bool:
    says = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in says  # Linux and macOS
        or "not enough memory" in says  # Windows
        or "calculation overflowed" in says
    )


def check_fits(config: ModelConfig, length: int) -> None:
    """Raise ContextError where `length` tokens are more than the positions reach; relative biases reach any length."""
    if any(stack.bounded for stack in config.stacks):
        check_context(length - 1, config.context)


def skeleton(config: ModelConfig) -> Encoder | Decoder | EncoderDecoder:
    """`build` without memory: on the meta device, nothing drawn. For counting, and for weights that come from files."""
    with torch.device("meta"), NothingDrawn():
        return build(config)


def _check_cache(cache: Cache | None, stack: Stack, batch: int) -> None:
    """Raise InputError for a cache that another kind of model began, or that holds another batch."""
    if cache is None:
        return
    if not isinstance(cache, Cache):
        raise InputError(f"cache is a {type(cache).__name__}; begin one with this model's new_cache().")
    layers = stack.config.n_layers
    if len(cache.layers) != layers:
        raise InputError(
            f"the cache has {len(cache.layers)} layers and this model {layers}; "
            "begin one with this model's new_cache()."
        )
    cache.check_batch(batch)
    for number, layer in enumerate(cache.layers):
        attention = stack.block(number).attention
        heads = attention.config.kv_heads, attention.d_head
        if layer.heads not in (None, heads):
            raise InputError(
                f"the cache has (heads, width) {layer.heads} in layer {number} and this model {heads}; "
                "begin one with this model's new_cache()."
            )


def _rules(real: Tensor | None, documents: Tensor | None, order: Rule | None) -> tuple[Rule, ...]:
    rules: list[Rule] = [order] if order is not None else []
    if real is not None:
        rules.append(KeyPadding(real))
    if documents is not None:
        rules.append(Documents(documents, documents))
    return tuple(rules)
