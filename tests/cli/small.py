"""Tiny random models behind what the commands use of `clearhead.load`, and a way to call a command."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn

import clearhead
from clearhead.lens.look import Look, look
from clearhead.model.config import ALiBi, AttentionConfig, Rotary, T5Bias
from tests.model import tiny

SENTENCE = "the cat sat on the mat because it was tired"


@dataclass
class Encoding:
    ids: list[int]
    offsets: list[tuple[int, int]]
    type_ids: list[int]
    labels: list[str]


class Words:
    """Words, with [CLS] and [SEP] around them where asked for."""

    def __init__(self, framed: bool) -> None:
        self.framed = framed

    def encode(self, text: str, /) -> Encoding:
        spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
        words = [text[a:b] for a, b in spans]
        ids = [3 + sum(map(ord, word)) % (tiny.VOCABULARY - 3) for word in words]
        if self.framed:
            spans, words, ids = [(0, 0), *spans, (0, 0)], ["[CLS]", *words, "[SEP]"], [1, *ids, 2]
        return Encoding(ids, spans, [0] * len(ids), words)


class Small:
    """As much of `clearhead.Loaded` as a look needs."""

    def __init__(self, name: str, model: Any) -> None:
        self.name, self.config = name, model.config
        self.model: nn.Module = model
        self.tokenizer = Words(framed=model.config.decoder is None)

    def look(self, text: str, target: str | None = None, **how: Any) -> Look:
        return look(self, text, target, **how)


WINDOWED = AttentionConfig(n_heads=4, n_kv_heads=2, window=3)
SINKS = AttentionConfig(n_heads=4, sinks=True, softcap=2.0)

MODELS = {
    "encoder": tiny.encoder,
    "decoder": tiny.decoder,
    "alibi": lambda: tiny.decoder(ALiBi()),
    "buckets": lambda: tiny.translator(T5Bias(buckets=8, max_distance=20)),
    "window": lambda: tiny.decoder(Rotary(), attention=WINDOWED),
    "sinks": lambda: tiny.decoder(attention=SINKS),
}
"""A model for each way in which scores are formed."""


def load(name: str, **_: Any) -> Small:
    return Small(name, MODELS[name]())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`clearhead.load` gives the models above, by their names."""
    monkeypatch.setattr(clearhead, "load", load, raising=False)
