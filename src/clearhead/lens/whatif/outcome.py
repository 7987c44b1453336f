"""Outcomes. What is measured where a model runs with something changed: a choice, with a sensible one for each head.

The answer is one number for each row of a batch, so that a sweep runs many what-ifs side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import InputError, OutsideError
from clearhead.lens.given import sort_of
from clearhead.lens.index import indices
from clearhead.lens.reading import Reading
from clearhead.lens.texts import Readable, as_written
from clearhead.model.config import (
    Head,
    LanguageModel,
    MaskedLanguageModel,
    ModelConfig,
    SentenceEmbedding,
    SequenceClassification,
    TokenClassification,
)
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder, Output

Logits = Float[Tensor, "B n V"]


class Measure(ABC):
    """What is measured; `words` say what the number is."""

    @property
    @abstractmethod
    def words(self) -> str: ...

    def bound(self, lm: Readable, reading: Reading, before: Output) -> Measure:
        """The same for one text: words looked up, positions chosen. Raises InputError where it does not fit the head.

        before: what the model says of the text as it is.
        """
        return self

    @abstractmethod
    def of(self, before: Output, after: Output) -> Float[Tensor, " B"]:
        """The number of each row; `before` has one row."""


@dataclass(frozen=True)
class Divergence(Measure):
    """KL(before ‖ after) of the next token (or of a gap's, or of labels), in nats; 0 where nothing changed.

    at: positions, whose mean it is. None: the last of a language model; the gaps of a masked one, all tokens where
    the text has no gap; all tokens of a tagger.
    """

    at: Sequence[int] | None = None

    @property
    def words(self) -> str:
        return "KL divergence, in nats"

    def bound(self, lm: Readable, reading: Reading, before: Output) -> Measure:
        if _head(lm) is None or isinstance(_head(lm), SentenceEmbedding):
            raise InputError("this model has no probabilities that could diverge; choose Turn(), the default.")
        _check_places(reading, self.at)
        return self if self.at is not None or writes(lm) else replace(self, at=gaps_of(lm, reading) or None)

    def of(self, before: Output, after: Output) -> Float[Tensor, " B"]:
        p, q = (_logits(each, self.at).double().log_softmax(-1) for each in (before, after))
        parts = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))
        return parts.sum(-1).mean(-1).clamp(min=0.0)


@dataclass(frozen=True)
class LogProbability(Measure):
    """log p(word) after − before, as the next token, or in the first gap. word: text, or a token's id."""

    word: str | int
    at: Sequence[int] | None = None

    @property
    def words(self) -> str:
        return f"change of log p({self.word!r})"

    def bound(self, lm: Readable, reading: Reading, before: Output) -> Measure:
        if not isinstance(_head(lm), LanguageModel | MaskedLanguageModel):
            raise InputError("this model scores no words, so that none is likely; choose another measure.")
        _check_places(reading, self.at)
        at = (-1,) if self.at is None and writes(lm) else self.at
        if at is None:
            at = gaps_of(lm, reading)[:1]
            if not at:
                raise InputError("the text has no gap for a word to be likely in; write the mask token somewhere.")
        id, of = token_of(lm, reading, self.word)
        first = "" if of == 1 else f", of its {of} tokens the first alone"
        return _TokenProbability(id, tuple(at), f"{self.words}{first}")

    def of(self, before: Output, after: Output) -> Float[Tensor, " B"]:
        raise AssertionError("bind it to a text first")


@dataclass(frozen=True)
class _TokenProbability(Measure):
    id: int
    at: tuple[int, ...]
    said: str

    @property
    def words(self) -> str:
        return self.said

    def of(self, before: Output, after: Output) -> Float[Tensor, " B"]:
        p, q = (_logits(each, self.at).double().log_softmax(-1)[..., self.id].mean(-1) for each in (before, after))
        return q - p


@dataclass(frozen=True)
class ClassLogit(Measure):
    """The logit of a label, after − before; None is the label that was likeliest before."""

    label: str | None = None

    @property
    def words(self) -> str:
        return f"change of the logit of {self.label!r}" if self.label is not None else "change of the label's logit"

    def bound(self, lm: Readable, reading: Reading, before: Output) -> Measure:
        head = _head(lm)
        if not isinstance(head, SequenceClassification):
            raise InputError("this model does not label texts, so that no label has a logit; choose another measure.")
        if self.label is not None and self.label not in head.labels:
            raise InputError(f"there is no label {self.label!r}; choose one of {', '.join(head.labels)}.")
        assert before.logits is not None
        index = int(before.logits[0].argmax()) if self.label is None else head.labels.index(self.label)
        return _Label(index, head.labels[index])

    def of(self, before: Output, after: Output) -> Float[Tensor, " B"]:
        raise AssertionError("bind it to a text first")


@dataclass(frozen=True)
class _Label(Measure):
    index: int
    label: str

    @property
    def words(self) -> str:
        return f"change of the logit of {self.label!r}"

    def of(self, before: Output, after: Output) -> Float[Tensor, " B"]:
        assert before.logits is not None and after.logits is not None
        return (after.logits[:, self.index] - before.logits[:, self.index]).double()


@dataclass(frozen=True)
class Turn(Measure):
    """1 − cos(before, after): how far the text's embedding turned; without one, its tokens' last vectors on average."""

    @property
    def words(self) -> str:
        return "1 − cosine"

    def of(self, before: Output, after: Output) -> Float[Tensor, " B"]:
        if before.embedding is not None and after.embedding is not None:
            return 1 - _cosine(before.embedding, after.embedding)
        return (1 - _cosine(before.hidden, after.hidden)).mean(-1)


def check_measure(measure: object) -> None:
    """Raise InputError for what is no measure; None is the one that fits the model's head."""
    if measure is not None and not isinstance(measure, Measure):
        thing = repr(measure) if isinstance(measure, str) else sort_of(measure)
        raise InputError(
            f"{thing} is no measure; give Divergence(), LogProbability(word), ClassLogit(label) or Turn(), or leave "
            "measure out for the one that fits the model."
        )


def usual(lm: Readable) -> Measure:
    """The measure that fits the model's head."""
    match _head(lm):
        case LanguageModel() | MaskedLanguageModel() | TokenClassification():
            return Divergence()
        case SequenceClassification():
            return ClassLogit()
        case _:
            return Turn()


def asks_the_end(lm: Readable, measure: Measure) -> bool:
    """True where only the last position's logits are asked for; all of them are T times the vocabulary."""
    return writes(lm) and getattr(measure, "at", None) is None


def writes(lm: Readable) -> bool:
    """True for a model that says what comes next."""
    return isinstance(_head(lm), LanguageModel | MaskedLanguageModel) and not isinstance(lm.model, Encoder)


def gaps_of(lm: Readable, reading: Reading) -> tuple[int, ...]:
    """The positions of the mask token, in a masked language model's text."""
    mask = getattr(lm.tokenizer, "mask_id", None)
    if mask is None or not isinstance(lm.model, Encoder):
        return ()
    return tuple(place for place, id in enumerate(reading.encoding.ids) if id == mask)


def token_of(lm: Readable, reading: Reading, word: str | int) -> tuple[int, int]:
    """The id of a word's first token, as it would be if the text went on with it, and how many tokens the word has.

    Raises InputError where there is none.
    """
    if not isinstance(word, str | int) or isinstance(word, bool):
        raise InputError(f"a word is a str, or a token's id, and not of type {type(word).__name__}.")
    size = config_of(lm).target_vocab_size
    if isinstance(word, int):
        if not 0 <= word < size:
            raise InputError(f"token {word} is outside the vocabulary; choose 0…{size - 1}.")
        return word, 1
    text = reading.target if reading.begun is not None else reading.text
    ids = reading.begun.ids[1:] if reading.begun is not None else reading.encoding.ids
    gaps = gaps_of(lm, reading)
    if gaps:  # the gap filled with the word
        spelt = getattr(lm.tokenizer, "special_tokens", {}).get("mask")
        start, end = reading.encoding.offsets[gaps[0]]
        whole = lm.tokenizer.encode(reading.text[:start] + word + reading.text[end:]).ids
        if spelt is not None and whole[: gaps[0]] == ids[: gaps[0]] and len(whole) > gaps[0] and word.strip():
            return whole[gaps[0]], max(1, len(whole) - len(ids) + 1)
    else:
        for line in (f"{text} {word}", f"{text}{word}") if word.strip() else ():
            if reading.begun is None:
                encoding = lm.tokenizer.encode(line)
            else:
                encoding = as_written(lm.tokenizer, line, reading.target_language)
            if encoding.ids[: len(ids)] == ids and len(encoding.ids) > len(ids):
                spelt_out = [b > a for a, b in encoding.offsets[len(ids) :]]  # what comes after the word spells nothing
                return encoding.ids[len(ids)], max(1, sum(spelt_out))
    raise InputError(f"{word!r} is no token that could stand there; give another word, or a token's id.")


def config_of(lm: Readable) -> ModelConfig:
    """The config of a loaded model of ours."""
    assert isinstance(lm.model, Encoder | Decoder | EncoderDecoder)  # `read` has refused all others
    return lm.model.config


def _head(lm: Readable) -> Head | None:
    return config_of(lm).head


def _check_places(reading: Reading, at: Sequence[int] | None) -> None:
    size = len(reading.begun.ids if reading.begun is not None else reading.encoding.ids)
    for place in indices(at, "a position") if at is not None else ():
        if not -size <= place < size:
            raise OutsideError(f"position {place} is outside the text; choose 0…{size - 1}.")
    if at is not None and not at:
        raise InputError("at=() names no position; give at least one, or leave it out.")


def _logits(output: Output, at: Sequence[int] | None) -> Logits:
    logits = output.logits
    assert logits is not None
    if logits.ndim == 2:
        return logits[:, None]
    return logits if at is None else logits[:, list(at)]


def _cosine(a: Float[Tensor, "*#B C"], b: Float[Tensor, "*#B C"]) -> Float[Tensor, "*B"]:
    return F.cosine_similarity(a.double(), b.double(), dim=-1)
