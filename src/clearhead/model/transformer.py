"""The three architectures. An Encoder reads both ways, a Decoder reads what came before, an EncoderDecoder has both.

All are made of the one block. Each is called on ids and returns an `Output`, whose `logits` (or `hidden`, where there
is no head) is the result. `build(config)` gives the one that a config describes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.errors import InputError
from clearhead.model.cache import Cache, count_positions
from clearhead.model.config import ModelConfig
from clearhead.model.embedding import check_batch
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
from clearhead.model.stack import Stack

Ids = Int[Tensor, "B T"]
Real = Bool[Tensor, "B T"] | Int[Tensor, "B T"]


@dataclass(frozen=True, eq=False)
class Output:
    """What a model gives back. Fields that the model or the call does not have are None.

    hidden: the last vectors, after the final norm. logits: (B, T, V), (B, T, labels) or (B, labels), by the head.
    embedding: the text's vector, of a sentence embedder. pooled: the pooler's. hidden_states: the stream after the
    embedding and after each block, on request. memory: the encoder's last vectors, in an encoder-decoder.
    """

    hidden: Float[Tensor, "B T C"]
    logits: Float[Tensor, "B *rest"] | None = None
    embedding: Float[Tensor, "B C"] | None = None
    pooled: Float[Tensor, "B C"] | None = None
    hidden_states: tuple[Float[Tensor, "B _ C"], ...] = ()
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
        real: Bool[Tensor, "B T"],
        states: tuple[Tensor, ...],
        memory: Tensor | None = None,
        last_only: bool = False,
    ) -> Output:
        pooled = self.pooler(hidden, real) if self.pooler is not None else None
        logits = embedding = None
        match self.head:
            case LanguageModelHead() | MaskedLanguageModelHead():
                logits = self.head(hidden[:, -1:] if last_only else hidden, stack.embedding.tokens.weight)
            case SequenceClassificationHead():
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
        """
        real, padded = real_tokens(input_ids, attention_mask)
        _check_shape("documents", documents, input_ids.shape)
        mask = Mask(_rules(real if padded else None, documents, None))
        if positions is None:
            positions = _positions(real, documents)
        hidden, states = self.encoder(
            input_ids,
            positions,
            mask,
            token_type_ids=token_type_ids,
            lengths=_lengths(positions, documents),
            keep_hidden=keep_hidden,
        )
        return self._finish(self.encoder, hidden, real, states)


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
        tokens, read and appended to; `attention_mask` then speaks of the new ids alone. last_only: logits of the last
        position only. The rest as in `Encoder`.
        """
        real, _ = real_tokens(input_ids, attention_mask)
        _check_shape("documents", documents, input_ids.shape)
        if cache is not None and (documents is not None or (prefix is not None and cache.length)):
            raise InputError("packed documents and prefixes are read in one call; leave the cache out.")
        if cache is not None and self.decoder.turns_by_length and (prefix is not None or token_type_ids is not None):
            raise InputError(
                "prefixes and token types are not kept, and this model's rotary scaling reads the text again as it "
                "grows; leave the cache out."
            )
        if positions is None:
            positions = cache.next_positions(real) if cache is not None else _positions(real, documents)
        new, offset, everyone = input_ids.shape[1], 0, real
        if cache is not None:
            if self.decoder.has_outgrown(cache, positions):
                input_ids, real, positions = cache.take_back(input_ids, real, positions)
            offset, everyone = cache.length, cache.extend(input_ids, real, positions)
        order = Prefix(prefix) if prefix is not None else Causal()
        padding = None if bool(everyone.all()) else everyone
        mask = Mask(_rules(padding, documents, order), offset=offset)
        hidden, states = self.decoder(
            input_ids,
            positions,
            mask,
            token_type_ids=token_type_ids,
            cache=cache,
            lengths=_lengths(positions, documents),
            keep_hidden=keep_hidden,
        )
        states = tuple(state[:, -new:] for state in states)
        return self._finish(self.decoder, hidden[:, -new:], real[:, -new:], states, last_only=last_only)

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
        mask = Mask(_rules(real if padded else None, None, None))
        memory, states = self.encoder(input_ids, count_positions(real), mask, keep_hidden=keep_hidden)
        return memory, states

    def forward(
        self,
        input_ids: Ids | None,
        decoder_input_ids: Int[Tensor, "B Tt"],
        *,
        attention_mask: Real | None = None,
        decoder_attention_mask: Bool[Tensor, "B Tt"] | Int[Tensor, "B Tt"] | None = None,
        memory: Float[Tensor, "B T C"] | None = None,
        cache: Cache | None = None,
        keep_hidden: bool = False,
        last_only: bool = False,
    ) -> Output:
        """Read the source, and the target so far. memory: `encode`'s result, so that the source is read once;
        `attention_mask` still says which of it is padding. The rest as in `Decoder`; `hidden_states` has the
        encoder's states first.
        """
        states: tuple[Tensor, ...] = ()
        if memory is None:
            if input_ids is None:
                raise InputError("an encoder-decoder needs the source: give input_ids, or memory from encode().")
            memory, states = self._encode(input_ids, attention_mask, keep_hidden)
        _check_shape("attention_mask", attention_mask, memory.shape[:2])
        source = attention_mask.bool() if attention_mask is not None else None
        if source is not None and bool(source.all()):
            source = None
        memory_mask = Mask(_rules(source, None, None))
        real, _ = real_tokens(decoder_input_ids, decoder_attention_mask)
        positions = cache.next_positions(real) if cache is not None else count_positions(real)
        new, offset, everyone = decoder_input_ids.shape[1], 0, real
        if cache is not None:
            if self.decoder.has_outgrown(cache, positions):
                decoder_input_ids, real, positions = cache.take_back(decoder_input_ids, real, positions)
            offset, everyone = cache.length, cache.extend(decoder_input_ids, real, positions)
        mask = Mask(_rules(None if bool(everyone.all()) else everyone, None, Causal()), offset=offset)
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
        return self._finish(self.decoder, hidden[:, -new:], real[:, -new:], states, memory, last_only)

    def new_cache(self) -> Cache:
        """An empty cache for this model's decoder."""
        return Cache(self.decoder.config.n_layers)


def build(config: ModelConfig) -> Encoder | Decoder | EncoderDecoder:
    """The model that the config describes, its weights freshly drawn (on torch's default device and generator)."""
    match config.architecture:
        case "encoder":
            return Encoder(config)
        case "decoder":
            return Decoder(config)
        case "encoder-decoder":
            return EncoderDecoder(config)


def check_fits(config: ModelConfig, length: int) -> None:
    """Raise ContextError where `length` tokens are more than the positions reach; relative biases reach any length."""
    if any(stack.bounded for stack in config.stacks):
        check_context(length - 1, config.context)


def skeleton(config: ModelConfig) -> Encoder | Decoder | EncoderDecoder:
    """`build` without memory: on the meta device, nothing drawn. For counting, and for weights that come from files."""
    with torch.device("meta"), NothingDrawn():
        return build(config)


def real_tokens(input_ids: Ids, attention_mask: Real | None) -> tuple[Bool[Tensor, "B T"], bool]:
    """Which tokens are real, and whether any is padding. Raises InputError where the mask's shape is not the ids'."""
    check_batch(input_ids)
    _check_shape("attention_mask", attention_mask, input_ids.shape)
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool), False
    real = attention_mask.bool()
    return real, not bool(real.all())


def _check_shape(name: str, given: Tensor | None, shape: torch.Size) -> None:
    if given is not None and given.shape != shape:
        raise InputError(
            f"{name} has shape {tuple(given.shape)} and the ids {tuple(shape)}; give one value for each id."
        )


def _rules(real: Tensor | None, documents: Tensor | None, order: Rule | None) -> tuple[Rule, ...]:
    rules: list[Rule] = [order] if order is not None else []
    if real is not None:
        rules.append(KeyPadding(real))
    if documents is not None:
        rules.append(Documents(documents, documents))
    return tuple(rules)


def _positions(real: Bool[Tensor, "B T"], documents: Ids | None) -> Ids:
    """Counted over real tokens; each packed document begins at 0 again."""
    counted = count_positions(real)
    if documents is None:
        return counted
    before = counted + (~real).long()  # the real tokens that came before
    return counted - torch.where(_begins(documents), before, torch.zeros_like(before)).cummax(dim=1).values


def _lengths(positions: Ids, documents: Ids | None) -> Ids | None:
    """How long the packed text is that each token belongs to; None where nothing is packed."""
    if documents is None:
        return None
    text = _begins(documents).long().cumsum(dim=1) - 1
    longest = torch.zeros_like(positions).scatter_reduce(1, text, positions + 1, "amax")
    return longest.gather(1, text)


def _begins(documents: Ids) -> Bool[Tensor, "B T"]:
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return begins
