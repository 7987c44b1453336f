"""Tiny random models behind the words that the explorer uses: its tests need no checkpoint and no tokenizer file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from clearhead.errors import TokenizerError, UnknownModelError
from clearhead.lens.look import Look, look
from clearhead.model import presets
from clearhead.model.config import ModelConfig, SequenceClassification, SpecialTokens
from clearhead.model.transformer import build

VOCAB = 97


@dataclass
class Encoding:
    ids: list[int]
    offsets: list[tuple[int, int]]
    type_ids: list[int]
    labels: list[str]


class Words:
    """Words and marks, with [CLS] and [SEP] around them where the model is an encoder."""

    def __init__(self, *, framed: bool) -> None:
        self.framed = framed

    def encode(self, text: str, /) -> Encoding:
        spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
        words = [text[a:b] for a, b in spans]
        ids = [3 + sum(map(ord, word)) % (VOCAB - 3) for word in words]
        if self.framed:
            spans, words, ids = [(0, 0), *spans, (0, 0)], ["[CLS]", *words, "[SEP]"], [1, *ids, 2]
        return Encoding(ids, spans, [0] * len(ids), words)


class Stub:
    """What `clearhead.load` gives, as far as the explorer looks."""

    def __init__(self, name: str, config: ModelConfig) -> None:
        torch.manual_seed(0)
        self.name, self.config = name, config
        self.model: nn.Module = build(config).eval()
        for parameter in self.model.parameters():  # attention that is not flat
            torch.nn.init.normal_(parameter, std=0.3)
        self.tokenizer = Words(framed=config.decoder is None)

    def look(self, text: str, target: str | None = None, **how: Any) -> Look:
        return look(self, text, target, **how)


class Tongues(Words):
    """Words of two languages, which a translator is told."""

    languages = ("deu", "fra")
    source_languages: tuple[str, ...] = languages

    def encode(
        self, text: str, /, *, source_language: str | None = None, target_language: str | None = None
    ) -> Encoding:
        for language in (source_language, target_language):
            if language is not None and language not in self.languages:
                raise TokenizerError(f"there is no language {language!r}; choose one of {', '.join(self.languages)}.")
        return super().encode(text)

    def encode_target(self, text: str, language: str | None = None, /) -> Encoding:
        return self.encode(text, target_language=language)

    def language_id(self, language: str, /) -> int:
        return 1 + self.languages.index(language)


class Told(Tongues):
    """Marian's way: a translator is told what to write, and no text can be said to be in a language."""

    source_languages = ()

    def encode(
        self, text: str, /, *, source_language: str | None = None, target_language: str | None = None
    ) -> Encoding:
        if source_language is not None:
            raise TokenizerError("this tokenizer has no token for the language of a source; leave source_language out")
        return super().encode(text, target_language=target_language)


class Translator(Stub):
    """A model of two texts that writes the second itself: the words of the first, from the last to the first."""

    def __init__(self, name: str, config: ModelConfig) -> None:
        super().__init__(name, config)
        self.tokenizer = (Told if name == "marian" else Tongues)(framed=False)

    def generate(self, prompt: str, *, max_new_tokens: int, **languages: str) -> str:
        assert max_new_tokens > 0
        return " ".join([*reversed(prompt.split()), *languages.values()])


def _both() -> ModelConfig:
    whole = presets.vaswani(vocab_size=VOCAB, context=64)
    assert whole.encoder is not None and whole.decoder is not None
    return replace(
        whole,
        encoder=replace(whole.encoder, n_layers=2),
        decoder=replace(whole.decoder, n_layers=2),
        tokens=SpecialTokens(decoder_start=0),
    )


CONFIGS = {
    "encoder": lambda: presets.bert(n_layers=2, n_heads=3, d_model=24, vocab_size=VOCAB, context=400),
    "decoder": lambda: presets.gpt2(n_layers=2, n_heads=2, d_model=16, vocab_size=VOCAB, context=64),
    "both": _both,
    "translator": _both,
    "marian": _both,
    "classifier": lambda: replace(_both(), head=SequenceClassification(labels=("no", "yes"), pooling="last")),
}


def load(name: str) -> Stub:
    """A model by its name, made anew each time."""
    if name not in CONFIGS:
        raise UnknownModelError(f"there is no model {name!r}.")
    return (Translator if name in ("translator", "marian") else Stub)(name, CONFIGS[name]())
