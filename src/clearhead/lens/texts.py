"""Texts. What a look needs of a tokenizer, and what an encoder-decoder's decoder reads of a text that is written.

A decoder reads what it has written so far: the token that it starts from, and then the target, but for its last token.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor, nn

from clearhead.errors import InputError
from clearhead.model.config import SequenceClassification
from clearhead.model.rows import read_again
from clearhead.model.transformer import EncoderDecoder

START = "⟨start⟩"
"""How the token that a decoder starts from is shown."""


@runtime_checkable
class Encoded(Protocol):
    """A text as a tokenizer gives it (`clearhead.text.Encoding`)."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def offsets(self) -> list[tuple[int, int]]: ...
    @property
    def type_ids(self) -> list[int]: ...
    @property
    def labels(self) -> list[str]: ...


@runtime_checkable
class Tokenizing(Protocol):
    """What `look` needs of a tokenizer (`clearhead.text.Tokenizer`)."""

    def encode(self, text: str, /) -> Encoded: ...


@runtime_checkable
class Readable(Protocol):
    """What `look` needs of a loaded model (`clearhead.load`)."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def tokenizer(self) -> Tokenizing: ...


@runtime_checkable
class Translating(Protocol):
    """What a tokenizer may have besides: a way of its own to cut what is written, and languages."""

    @property
    def languages(self) -> tuple[str, ...]: ...
    def encode_target(self, text: str, language: str | None = None, /) -> Encoded: ...
    def language_id(self, language: str, /) -> int: ...


class Begun:
    """A text as the decoder reads it: the token that it starts from, then all but the text's last one."""

    def __init__(self, written: Encoded, start: int, label: str = START) -> None:
        self.ids = [start, *written.ids[:-1]]
        self.offsets = [(0, 0), *written.offsets[:-1]]
        self.type_ids = [0, *written.type_ids[:-1]]
        self.labels = [label, *written.labels[:-1]]


def source(
    tokenizer: Tokenizing | None,
    text: str,
    source_language: str | None,
    target_language: str | None,
    what: str = "text",
) -> Encoded:
    """The text that the model reads. what: whose it is. Raises InputError where there is nothing to read."""
    _check(tokenizer, text, what)
    said: dict[str, Any] = {"source_language": source_language, "target_language": target_language}
    said = {name: language for name, language in said.items() if language is not None}
    if said and not isinstance(tokenizer, Translating):
        raise InputError("this model's tokenizer knows no languages; leave source_language and target_language out.")
    assert tokenizer is not None
    return _some(tokenizer.encode(text, **said), what)


def target(model: EncoderDecoder, tokenizer: Tokenizing, text: str, language: str | None) -> Begun:
    """What the decoder reads of a text that it writes, in `language` where it has several."""
    _check(tokenizer, text, "target")
    ways = tokenizer if isinstance(tokenizer, Translating) else None
    written = _some(as_written(tokenizer, text, language), "target")
    tokens = model.config.tokens
    start = tokens.decoder_start if tokens.decoder_start is not None else tokens.bos
    if start is None:
        raise InputError("this model names no token for its decoder to start from; its config lacks it.")
    if ways is not None and language is not None and start in map(ways.language_id, ways.languages):
        start = ways.language_id(language)  # mBART starts from the language itself
    return Begun(written, start)


def as_written(tokenizer: Tokenizing, text: str, language: str | None) -> Encoded:
    """A text as it is cut where a decoder writes it, in `language` where it has several."""
    return tokenizer.encode_target(text, language) if isinstance(tokenizer, Translating) else tokenizer.encode(text)


def again(model: EncoderDecoder, head: SequenceClassification, text: Encoded, ids: Int[Tensor, "1 T"]) -> Begun:
    """What the decoder of a classifier reads: the source once more, one place on."""
    first = int(read_again(ids, None, model.config.tokens.decoder_start, wrapped=head.wrapped)[0][0, 0])
    return Begun(text, first, text.labels[-1] if head.wrapped else START)


def _check(tokenizer: Tokenizing | None, text: str, what: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"the {what} is of type {type(text).__name__}; give a str.")
    if not text.strip():
        raise InputError(f"the {what} is empty; give at least one word.")
    if tokenizer is None:
        raise InputError("this model was loaded without a tokenizer; use `watch` and give it ids.")


def _some(encoding: Encoded, what: str) -> Encoded:
    if not isinstance(encoding, Encoded):
        raise InputError(
            f"this tokenizer gives {type(encoding).__name__}, without the places of its tokens in the text; load the "
            "model with clearhead.load, or give a clearhead.Tokenizer."
        )
    if not encoding.ids:
        raise InputError(f"the {what} has no tokens in this model's vocabulary; give another.")
    return encoding
