"""A reader: a model in the middle of a batch of texts. Give it the ids that come next, and it says what may follow.

The models that write, decoders, encoder-decoders and recurrent ones, look alike from here, with a cache and without.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.errors import ContextError, InputError
from clearhead.generate.settings import GenerationSettings
from clearhead.model.config import LanguageModel, MaskedLanguageModel
from clearhead.model.embedding import check_vocabulary
from clearhead.model.modes import without_dropout
from clearhead.model.recurrent import RecurrentConfig, RecurrentLanguageModel
from clearhead.model.recurrent_translator import RecurrentTranslator, RecurrentTranslatorConfig
from clearhead.model.rows import check_gaps, real_tokens
from clearhead.model.transformer import Decoder, EncoderDecoder, Output, Transformer

Translator = EncoderDecoder | RecurrentTranslator
Writer = Decoder | Translator | RecurrentLanguageModel


class Reader:
    """A model that writes, and what it has read so far.

    start, start_real: what the text to be continued begins with: the prompt, and which of it is no padding; in an
    encoder-decoder, whose `ids` are the source, the token that the decoder starts from. source: what it reads besides,
    and which of it is no padding; of a decoder the prompt.

    Raises InputError for a model that does not write, and for ids or a mask that do not fit it.
    """

    def __init__(
        self,
        model: nn.Module,
        ids: Int[Tensor, "B T"],
        *,
        attention_mask: Bool[Tensor, "B T"] | Int[Tensor, "B T"] | None = None,
        use_cache: bool = True,
        decoder_start: int | None = None,
    ) -> None:
        self.model = _writer(model)
        device = next(model.parameters()).device
        real, _ = real_tokens(ids, attention_mask)
        check_vocabulary(ids, self.model.config.vocab_size)
        ids, real = ids.to(device), real.to(device)
        _check_texts(real)
        self.source: tuple[Tensor, Tensor] = ids, real
        if isinstance(self.model, Translator):
            if isinstance(self.model, EncoderDecoder):
                check_gaps(self.model.encoder.config, real)
            begin = decoder_start if decoder_start is not None else _begin(self.model)
            self.start = ids.new_full((ids.shape[0], 1), begin)
            check_vocabulary(self.start, self.vocab_size)
            self.start_real = torch.ones_like(self.start, dtype=torch.bool)
        else:
            _check_padded_left(real)
            self.start, self.start_real = ids, real
        self._memory: Tensor | None = None
        self._cache = self.model.new_cache() if use_cache else None
        self._ids, self._real = self.start[:, :0], self.start_real[:, :0]  # what was read, kept where no cache is

    @property
    def vocab_size(self) -> int:
        """How many ids there are to choose from; an encoder-decoder's source may be of another vocabulary."""
        config = self.model.config
        if isinstance(config, RecurrentConfig | RecurrentTranslatorConfig):
            return config.vocab_size
        return config.target_vocab_size

    def room(self, settings: GenerationSettings) -> int:
        """How many ids may be added. Raises ContextError where those that were asked for do not fit the positions.

        max_new_tokens has to fit; max_length and the default are limits, like the last position.
        """
        free = self._free()
        if settings.max_new_tokens is not None:
            wanted = settings.max_new_tokens
            if free is not None and free < wanted:
                raise self._no_room(wanted, free)
            return wanted
        wanted = settings.default_new_tokens
        if settings.max_length is not None:
            wanted = settings.max_length - self.start.shape[1]
            if wanted <= 0:
                raise ContextError(
                    f"the prompt is {self.start.shape[1]} tokens long, and max_length={settings.max_length} counts it: "
                    "no new token fits; give max_new_tokens, or shorten the prompt."
                )
        if free is not None and free <= 0:
            raise self._no_room(wanted, free)
        return wanted if free is None else min(wanted, free)

    def _free(self) -> int | None:
        """How many tokens fit behind the start; None where positions have no end (relative biases reach any length)."""
        if isinstance(self.model, RecurrentLanguageModel | RecurrentTranslator):
            return None
        config = self.model.config
        if isinstance(self.model, EncoderDecoder) and config.encoder is not None and config.encoder.bounded:
            source = int(self.source[1].sum(dim=1).max())
            if source > config.context:
                raise ContextError(
                    f"the source is {source} tokens long and the model's positions end at {config.context}; "
                    f"shorten it to {config.context} tokens."
                )
        if config.decoder is None or not config.decoder.bounded:
            return None
        return config.context - int(self.start_real.sum(dim=1).max())

    def _no_room(self, new: int, free: int) -> ContextError:
        assert not isinstance(self.model, RecurrentLanguageModel | RecurrentTranslator)
        context = self.model.config.context
        length = context - free
        if free <= 0:
            return ContextError(
                f"the prompt is {length} tokens long and the model's positions end at {context}, so that "
                f"no new token fits; shorten it to fewer than {context} tokens."
            )
        return ContextError(
            f"a prompt of {length} and {new} new tokens do not fit the model's {context} positions; "
            f"ask for at most {free} new tokens, or shorten the prompt."
        )

    def select(self, rows: Int[Tensor, " n"]) -> None:
        """Go on with these rows of the batch, in this order; a row may come several times (beam search)."""
        self.source = self.source[0][rows], self.source[1][rows]
        if self._memory is not None:
            self._memory = self._memory[rows]
        if self._cache is not None:
            self._cache.select(rows)
        self._ids, self._real = self._ids[rows], self._real[rows]

    def read(self, ids: Int[Tensor, "B n"], real: Bool[Tensor, "B n"] | None = None) -> Float[Tensor, "B V"]:
        """Read on, and return the logits of what may come next, in float32 or better. No gradients, no dropout."""
        real = torch.ones_like(ids, dtype=torch.bool) if real is None else real
        if self._cache is None:
            self._ids, self._real = torch.cat((self._ids, ids), dim=1), torch.cat((self._real, real), dim=1)
            ids, real = self._ids, self._real
        with torch.inference_mode(), without_dropout(self.model):
            logits = self._call(ids, real).logits
            assert logits is not None
            last = logits[:, -1]
            return last if last.dtype == torch.float64 else last.float()

    def _call(self, ids: Int[Tensor, "B n"], real: Bool[Tensor, "B n"]) -> Output:
        if isinstance(self.model, Translator):
            source, source_real = self.source
            if self._memory is None:
                self._memory = self.model.encode(source, attention_mask=source_real)
            return self.model(
                None,
                ids,
                memory=self._memory,
                attention_mask=source_real,
                decoder_attention_mask=real,
                cache=self._cache,
                last_only=True,
            )
        return self.model(ids, attention_mask=real, cache=self._cache, last_only=True)


def _writer(model: nn.Module) -> Writer:
    if isinstance(model, RecurrentLanguageModel | RecurrentTranslator):
        return model
    if not isinstance(model, Decoder | EncoderDecoder):
        what = "reads both ways" if isinstance(model, Transformer) else "is none of ours"
        raise InputError(
            f"{type(model).__name__} {what}: it has no next token to give; take a Decoder, an EncoderDecoder, a "
            "RecurrentLanguageModel or a RecurrentTranslator."
        )
    if not isinstance(model.config.head, LanguageModel | MaskedLanguageModel):
        head = type(model.config.head).__name__ if model.config.head is not None else "no head"
        raise InputError(f"the model has {head} and scores no vocabulary; load it with a LanguageModel head.")
    return model


def _begin(model: Translator) -> int:
    """The token that the decoder starts from; as in transformers, the one that begins a text where none is named."""
    tokens = model.config.tokens
    begin = tokens.decoder_start if tokens.decoder_start is not None else tokens.bos
    if begin is None:
        raise InputError(
            "the model's config names no token for the decoder to start from; set SpecialTokens.decoder_start."
        )
    return begin


def _check_texts(real: Bool[Tensor, "B T"]) -> None:
    empty = (~real.any(dim=1)).nonzero()
    if len(empty):
        raise InputError(f"text {int(empty[0])} of the batch is nothing but padding; give it at least one token.")


def _check_padded_left(real: Bool[Tensor, "B T"]) -> None:
    """Raise InputError where padding follows a token: what is written next must stand right behind the prompt."""
    gap = (real[:, :-1] & ~real[:, 1:]).any(dim=1).nonzero()
    if len(gap):
        raise InputError(
            f"text {int(gap[0])} of the batch has padding after its tokens, and writing goes on from the last token; "
            "pad on the left."
        )
