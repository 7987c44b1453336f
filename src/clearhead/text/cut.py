"""Sentencepiece cuts, a vocabulary numbers. Marian and M2M-100 keep a list of tokens of their own beside the
sentencepiece model: the pieces of a text are looked up in it by their letters, the unknown stretches among them too.

The `tokenizers` library has no such model, so the cutting is a step before one that is only a list. It is Python, which
a tokenizer.json cannot hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated
from clearhead.text.sentencepiece import SPACE, Kind, SentencePieceModel, backend_from_sentencepiece


class Cut:
    """A step that cuts a text into the pieces of a sentencepiece model. told: the text may begin with the code of a
    language, as in `>>fra<< text`, which is one token whatever it says."""

    def __init__(self, model: SentencePieceModel, *, told: bool) -> None:
        # A piece that no text is cut into needs a spelling that no text has.
        hidden = (Kind.CONTROL, Kind.UNKNOWN)
        pieces = [
            replace(piece, text=f"\ufdd0{id}") if piece.kind in hidden else piece
            for id, piece in enumerate(model.pieces)
        ]
        pipeline = backend_from_sentencepiece(replace(model, pieces=pieces))
        self._clean, self._model, self._told = pipeline.normalizer, pipeline.model, told

    def pre_tokenize(self, text: Any) -> None:
        """The library calls this with a stretch between special tokens."""
        text.split(self._pieces)

    def _pieces(self, number: int, text: Any) -> list[Any]:
        found = []
        end = text.normalized.find("<<") if self._told and text.normalized.startswith(">>") else -1
        if end >= 0:
            found.append(text[: end + 2])
            text = text[end + 2 :]
        self._clean.normalize(text)
        letters = text.normalized
        encoded = letters.encode()
        at = 0
        for token in self._model.tokenize(letters):
            start, stop = token.offsets  # in bytes
            length = len(encoded[start:stop].decode())
            found.append(text[at : at + length])
            at += length
        return found


def backend_from_cut(
    model: SentencePieceModel, vocabulary: Mapping[str, Any], special: list[str], *, told: bool = False
) -> Backend:
    """The pipeline in which `model` cuts and `vocabulary` numbers. special: its tokens that no text is cut into.

    Raises `TokenizerError` for a vocabulary that is none, or has no `<unk>`.
    """
    if any(piece.kind is Kind.USER_DEFINED for piece in model.pieces):
        raise TokenizerError("pieces that a user defined have no place in a vocabulary beside the sentencepiece model")
    if not all(type(id) is int and 0 <= id < 1 << 32 for id in vocabulary.values()):
        raise TokenizerError("the vocabulary should be an object from each token to its id, a whole number")
    if len(set(vocabulary.values())) != len(vocabulary) or "<unk>" not in vocabulary:
        raise TokenizerError("the vocabulary has no <unk>, or one id for two tokens; it is damaged")
    with translated("the vocabulary cannot be rebuilt; it is damaged"):
        backend = Backend(WordLevel(dict(vocabulary), unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Cut(model, told=told))
        bytes_too = [decoders.ByteFallback()] if model.byte_fallback else []
        backend.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), *bytes_too, decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return backend
