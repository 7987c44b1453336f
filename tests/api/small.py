"""Tiny random models with a trained tokenizer, as `clearhead.load` would give them; one for each job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearhead.api import Loaded
from clearhead.checkpoint.pretrained import Foreign, Pretrained
from clearhead.model.config import (
    EmbeddingConfig,
    Head,
    LanguageModel,
    MaskedLanguageModel,
    SentenceEmbedding,
    SequenceClassification,
    SpecialTokens,
    TokenClassification,
)
from clearhead.text import Tokenizer
from tests.model import tiny
from tests.text.corpus import LINES

WORDS = Tokenizer.train(LINES, kind="wordpiece", vocab_size=200)
LANGUAGES = ("de_DE", "fr_XX", "__it__")
PIECES = Tokenizer.train(LINES, kind="byte-bpe", vocab_size=330, special_tokens=["<pad>", "<s>", "</s>", *LANGUAGES])


def encoder(head: Head | None, **foreign: Any) -> Loaded:
    """A BERT of words."""
    whole = {"vocab_size": WORDS.vocab_size, "head": head, "tokens": SpecialTokens(pad=WORDS.pad_id)}
    whole["embedding"] = EmbeddingConfig(token_types=2)
    model = tiny.encoder(whole=whole)
    kept = Foreign(config=foreign)
    return Loaded(Pretrained(model, WORDS, model.config, family="bert", name="small", foreign=kept))


def writer(*, translates: bool = False, generation: dict[str, Any] | None = None, **tokens: Any) -> Loaded:
    """A decoder, or a translator, of byte pieces."""
    ids = {"pad": 0, "bos": 1, "eos": (2,), "decoder_start": 2 if translates else None, **tokens}
    whole = {"vocab_size": PIECES.vocab_size, "tokens": SpecialTokens(**ids), "head": LanguageModel()}
    model = tiny.translator(whole=whole) if translates else tiny.decoder(whole=whole)
    return Loaded(Pretrained(model, PIECES, model.config, name="small", foreign=Foreign(generation=generation)))


def masked() -> Loaded:
    return encoder(MaskedLanguageModel())


def classifier(**foreign: Any) -> Loaded:
    return encoder(SequenceClassification(labels=("bad", "so so", "good")), **foreign)


def tagger() -> Loaded:
    return encoder(TokenClassification(labels=("O", "B-PER", "I-PER", "LOC")))


def embedder(**choices: Any) -> Loaded:
    return encoder(replace(SentenceEmbedding(), **choices))
