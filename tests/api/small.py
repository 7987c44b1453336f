"""Tiny random models with a trained tokenizer, as `clearhead.load` would give them; one for each job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearhead.api import Loaded
from clearhead.checkpoint.pretrained import Original, Pretrained
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
from clearhead.text.folder import Found
from clearhead.text.languages import Languages
from clearhead.text.special import surround
from tests.model import tiny
from tests.text.corpus import LINES

WORDS = Tokenizer.train(LINES, kind="wordpiece", vocab_size=200)
PIECES = Tokenizer.train(LINES, kind="byte-bpe", vocab_size=330, special_tokens=["<pad>", "<s>", "</s>"])


def _told() -> Tokenizer:
    """A translator's: each text begins with its language, as M2M-100's."""
    tokens = ["<pad>", "<s>", "</s>", "__de__", "__fr__"]
    backend = Tokenizer.train(LINES, kind="byte-bpe", vocab_size=330, special_tokens=tokens).backend
    surround(backend, ["__de__"], ["</s>"], joined=True)
    spoken = Languages(tokens={"de": "__de__", "fr": "__fr__"}, place="before", source="de", target="de")
    return Tokenizer(Found(backend=backend, special_tokens={"pad": "<pad>", "eos": "</s>"}, languages=spoken))


TOLD = _told()


def encoder(head: Head | None, **keys: Any) -> Loaded:
    """A BERT of words."""
    whole = {"vocab_size": WORDS.vocab_size, "head": head, "tokens": SpecialTokens(pad=WORDS.pad_id)}
    whole["embedding"] = EmbeddingConfig(token_types=2)
    model = tiny.encoder(whole=whole)
    kept = Original(config=keys)
    return Loaded(Pretrained(model, WORDS, model.config, family="bert", name="small", original=kept))


def writer(*, translates: bool = False, generation: dict[str, Any] | None = None, **tokens: Any) -> Loaded:
    """A decoder of byte pieces, or a translator that is told the languages."""
    ids = {"pad": 0, "bos": 1, "eos": (2,), "decoder_start": 2 if translates else None, **tokens}
    whole = {"vocab_size": PIECES.vocab_size, "tokens": SpecialTokens(**ids), "head": LanguageModel()}
    model = tiny.translator(whole=whole) if translates else tiny.decoder(whole=whole)
    words = TOLD if translates else PIECES
    return Loaded(Pretrained(model, words, model.config, name="small", original=Original(generation=generation)))


def masked() -> Loaded:
    return encoder(MaskedLanguageModel())


def classifier(**keys: Any) -> Loaded:
    return encoder(SequenceClassification(labels=("bad", "so so", "good")), **keys)


def tagger() -> Loaded:
    return encoder(TokenClassification(labels=("O", "B-PER", "I-PER", "LOC")))


def embedder(**choices: Any) -> Loaded:
    return encoder(replace(SentenceEmbedding(), **choices))
