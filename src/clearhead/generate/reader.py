"""A reader: a model in the middle of a batch of texts. Give it the ids that come next, and it says what may follow.

The models that write, decoders, encoder-decoders and recurrent ones, look alike from here, with a cache and without.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.errors import ContextError, InputError
from clearhead.model.config import LanguageModel, MaskedLanguageModel
from clearhead.model.embedding import check_vocabulary
from clearhead.model.modes import without_dropout
from clearhead.model.recurrent import RecurrentLanguageModel
from clearhead.model.rows import check_gaps, real_tokens
from clearhead.model.transformer import Decoder, EncoderDecoder, Output, Transformer

Writer = Decoder | EncoderDecoder | RecurrentLanguageModel


class Reader:
    """A model that writes, and what it has read so far.

    start, start_real: what the text to be continued begins with: the prompt, and which of it is no padding; in an
    encoder-decoder, whose `ids` are the source, the token that the decoder starts from.

    Raises InputError for a model that does not write, and for ids or a mask that do not fit it.
    """

    def __init__(
        self,
        model: nn.Module,
        ids: Int[Tensor, "B T"],
        *,
        attention_mask: Bool[Tensor, "B T"] | Int[Tensor, "B T"] | None = None,
        use_cache: bool = True,
    ) -> None:
        self.model = _writer(model)
        device = next(model.parameters()).device
        real, _ = real_tokens(ids, attention_mask)
        check_vocabulary(ids, self.model.config.vocab_size)
        ids, real = ids.to(device), real.to(device)
        _check_texts(real)
        if isinstance(self.model, EncoderDecoder):
            begin = self.model.config.tokens.decoder_start
            if begin is None:
                raise InputError(
                    "the model's config names no token for the decoder to start from; set SpecialTokens.decoder_start."
                )
            check_gaps(self.model.encoder.config, real)
            self._source: tuple[Tensor, Tensor] | None = ids, real
            self.start = ids.new_full((ids.shape[0], 1), begin)
            check_vocabulary(self.start, self.model.config.vocab_size)
            self.start_real = torch.ones_like(self.start, dtype=torch.bool)
        else:
            _check_padded_left(real)
            self._source = None
            self.start, self.start_real = ids, real
        self._memory: Tensor | None = None
        self._cache = self.model.new_cache() if use_cache else None
        self._ids, self._real = self.start[:, :0], self.start_real[:, :0]  # what was read, kept where no cache is

    def check_room(self, new: int) -> None:
        """Raise ContextError unless `new` more tokens fit the model's positions; relative biases reach any length."""
        if isinstance(self.model, RecurrentLanguageModel):
            return
        config = self.model.config
        if self._source is not None and config.encoder is not None and config.encoder.bounded:
            source = int(self._source[1].sum(dim=1).max())
            if source > config.context:
                raise ContextError(
                    f"the source is {source} tokens long and the model's positions end at {config.context}; "
                    f"shorten it to {config.context} tokens."
                )
        if config.decoder is not None and config.decoder.bounded:
            length = int(self.start_real.sum(dim=1).max())
            room = config.context - length
            if room < new and room <= 0:
                raise ContextError(
                    f"the prompt is {length} tokens long and the model's positions end at {config.context}, so that "
                    f"no new token fits; shorten it to fewer than {config.context} tokens."
                )
            if room < new:
                raise ContextError(
                    f"a prompt of {length} and {new} new tokens do not fit the model's {config.context} positions; "
                    f"ask for at most {room} new tokens, or shorten the prompt."
                )

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
        if isinstance(self.model, EncoderDecoder):
            assert self._source is not None
            source, source_real = self._source
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
    if isinstance(model, RecurrentLanguageModel):
        return model
    if not isinstance(model, Decoder | EncoderDecoder):
        what = "reads both ways" if isinstance(model, Transformer) else "is none of ours"
        raise InputError(
            f"{type(model).__name__} {what}: it has no next token to give; take a Decoder, an EncoderDecoder or a "
            "RecurrentLanguageModel."
        )
    if not isinstance(model.config.head, LanguageModel | MaskedLanguageModel):
        head = type(model.config.head).__name__ if model.config.head is not None else "no head"
        raise InputError(f"the model has {head} and scores no vocabulary; load it with a LanguageModel head.")
    return model


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
