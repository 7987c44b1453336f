"""Layouts. Some models number their tokens otherwise than the sentencepiece file that they were trained with: fairseq's
put `<s> <pad> </s> <unk>` first, Pegasus 105 tokens of its own, T5 a hundred behind; translators end in languages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clearhead.errors import TokenizerError
from clearhead.text.language_codes import NLLB
from clearhead.text.sentencepiece import Kind, Piece, SentencePieceModel
from clearhead.text.special import added_token

UNKNOWN = "<unk>"
_COMMA = re.compile(r"\d,\Z")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`head` in the place of the file's first `drop` pieces, and `tail` behind its last. no_commas: a number never
    shares a piece with the comma behind it, though the file has such pieces."""

    head: tuple[str, ...] = ()
    drop: int = 0
    tail: tuple[str, ...] = ()
    no_commas: bool = False


Rule = Callable[[Mapping[str, Any]], Layout]
"""The layout that a tokenizer's config asks for."""


def as_it_is(config: Mapping[str, Any]) -> Layout:
    """The file's own numbers."""
    return Layout()


def albert(config: Mapping[str, Any]) -> Layout:
    """ALBERT's: the file's own numbers, but for pieces such as `9,`."""
    return Layout(no_commas=True)


def fairseq(*languages: str) -> Rule:
    """XLM-R's and mBART's: fairseq counts its own four tokens first, and the mask last."""
    layout = Layout(head=("<s>", "<pad>", "</s>", UNKNOWN), drop=3, tail=(*languages, "<mask>"))
    return lambda config: layout


def nllb(config: Mapping[str, Any]) -> Layout:
    """The same, with the languages that the folder lists, or else NLLB-200's."""
    return fairseq(*(listed(config) or NLLB))(config)


def camembert(config: Mapping[str, Any]) -> Layout:
    """fairseq's tokens before a vocabulary that had its own: three of them are never used."""
    head = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", UNKNOWN, "<unk>NOTUSED")
    return Layout(head=head, drop=1, tail=("<mask>",))


def pegasus(config: Mapping[str, Any]) -> Layout:
    """Pegasus's: what its training masked, and a hundred tokens that it never used."""
    offset, sentence = config.get("offset", 103), config.get("mask_token_sent", "<mask_1>")
    if offset != 103 or sentence != "<mask_1>":
        raise TokenizerError(f"offset={offset!r} and mask_token_sent={sentence!r} are not Pegasus's 103 and '<mask_1>'")
    unused = (f"<unk_{number}>" for number in range(2, offset))
    return Layout(head=("<pad>", "</s>", "<mask_1>", "<mask_2>", *unused), drop=2)


def sentinels(config: Mapping[str, Any]) -> Layout:
    """T5's `<extra_id_…>`, the last number first."""
    count = config.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= 10_000:
        raise TokenizerError(f"extra_ids={count!r} in tokenizer_config.json should be a whole number up to 10000")
    return Layout(tail=tuple(f"<extra_id_{number}>" for number in reversed(range(count))))


def listed(config: Mapping[str, Any]) -> list[str]:
    """The special tokens without a role that the config lists."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = list(extra.values()) if isinstance(extra, dict) else extra if isinstance(extra, list) else []
    return [added_token(token).content for token in extra]


def laid_out(model: SentencePieceModel, layout: Layout, stated: Mapping[int, Any]) -> SentencePieceModel:
    """The model with its pieces so numbered. stated: tokens whose ids the folder itself states; where they reach
    behind the pieces, they are what follows there.

    Raises `TokenizerError` where the first pieces are not the special ones that the layout has in their place.
    """
    dropped, kept = model.pieces[: layout.drop], model.pieces[layout.drop :]
    for piece in dropped:
        if piece.kind not in (Kind.UNKNOWN, Kind.CONTROL):
            raise TokenizerError(f"this model begins with {piece.text!r}, where one of its kind has a special token")
    texts = {piece.text for piece in kept}
    behind = sorted(id for id in stated if id >= len(layout.head) + len(kept))
    tail = layout.tail
    if tail and behind:
        tail = tuple(added_token(stated[id]).content for id in behind)
    lowest = min((piece.score for piece in model.pieces), default=0.0)

    if layout.no_commas:
        kept = [replace(piece, score=piece.score - 100) if _COMMA.search(piece.text) else piece for piece in kept]

    def own(text: str) -> Piece:
        return Piece(text, lowest, Kind.UNKNOWN if text == UNKNOWN else Kind.CONTROL)

    pieces = [*map(own, layout.head), *kept, *(own(text) for text in dict.fromkeys(tail) if text not in texts)]
    if not layout.head:
        return replace(model, pieces=pieces)
    unknown = next((id for id, piece in enumerate(pieces) if piece.kind is Kind.UNKNOWN), -1)
    return replace(model, pieces=pieces, unk_id=unknown, bos_id=-1, eos_id=-1, pad_id=-1)
