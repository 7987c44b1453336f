"""Sentencepiece models. A `.model` file is a list of scored pieces, the rule that cuts text into them, and the
clean-up of the text before; `backend_from_sentencepiece` says the same in the words of the `tokenizers` library.

Unigram keeps the scores as they are: both libraries look for the cut with the best sum. BPE is stored without its
merges, since sentencepiece joins whichever neighbours make the best-scored piece; the merges are had back by asking
of every piece which two pieces it can be joined from, best score first.

Known differences from the sentencepiece library. Control pieces and the unknown piece, such as `<s>`, become special
tokens, so text that spells one becomes that token, as in Hugging Face. Each stretch of text between special tokens is
encoded as sentencepiece would encode it alone. A text that is one user-defined piece and nothing else gets no space
mark before it. The `tokenizers` library maps whole graphemes, and so treats a few
characters inside them otherwise, such as the joiner U+200D after a blank or an accented letter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, Unigram

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated
from clearhead.text.protobuf import Value, fields, signed

SPACE = "▁"
LONGEST_PIECE = 1024
"""Characters. Trained pieces have at most a few dozen; finding the merges of one takes time in its length squared."""


class Kind(IntEnum):
    """What a piece is for; the numbers are those of the file."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(IntEnum):
    """How text is cut into pieces; the numbers are those of the file."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """One token: its text (with `▁` for a space), its score and its kind."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """What a `.model` file says, as far as encoding needs it. Defaults are those of the format."""

    pieces: list[Piece]
    algorithm: Algorithm = Algorithm.UNIGRAM
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1

    def special_tokens(self) -> dict[str, str]:
        """The pieces that the model names as unknown, beginning, end and padding, by role; those it has."""
        named = {"unk": self.unk_id, "bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id}
        roles = {}
        for role, id in named.items():
            if 0 <= id < len(self.pieces) and self.pieces[id].kind in (Kind.UNKNOWN, Kind.CONTROL):
                roles[role] = self.pieces[id].text
        return roles


def parse(data: bytes) -> SentencePieceModel:
    """Read the bytes of a `.model` file.

    Raises `TokenizerError` if they are no such file, contradict themselves, or ask for what is not offered here
    (word and character models, spaces marked at the end of words, unused pieces).
    """
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in fields(data):
        if number == 1:
            pieces.append(_piece(_message(value, "piece"), len(pieces)))
        elif number == 2:
            trainer = dict(fields(_message(value, "trainer_spec")))
        elif number == 3:
            normalizer = dict(fields(_message(value, "normalizer_spec")))

    def whole(spec: dict[int, Value], number: int, default: int) -> int:
        value = spec.get(number, default)
        if not isinstance(value, int):
            raise TokenizerError(f"field {number} of the sentencepiece model should be a whole number; it is damaged")
        return signed(value)

    if whole(trainer, 24, 0):
        raise TokenizerError("this sentencepiece model marks spaces at the end of words, which clearhead does not read")
    if not whole(normalizer, 5, 1):
        raise TokenizerError("this sentencepiece model does not mark its spaces, which clearhead does not read")
    charsmap = normalizer.get(2, b"")
    if not isinstance(charsmap, bytes):
        raise TokenizerError("the normaliser's character map is no run of bytes; the sentencepiece model is damaged")
    algorithm = whole(trainer, 3, Algorithm.UNIGRAM)
    if algorithm not in (Algorithm.UNIGRAM, Algorithm.BPE):
        raise TokenizerError(f"the sentencepiece model is of type {algorithm}; clearhead reads 1 (unigram) and 2 (bpe)")
    model = SentencePieceModel(
        pieces=pieces,
        algorithm=Algorithm(algorithm),
        byte_fallback=bool(whole(trainer, 35, 0)),
        charsmap=charsmap,
        add_dummy_prefix=bool(whole(normalizer, 3, 1)),
        remove_extra_whitespaces=bool(whole(normalizer, 4, 1)),
        unk_id=next((id for id, piece in enumerate(pieces) if piece.kind is Kind.UNKNOWN), -1),
        bos_id=whole(trainer, 41, 1),
        eos_id=whole(trainer, 42, 2),
        pad_id=whole(trainer, 43, -1),
    )
    _check(model)
    return model


def backend_from_sentencepiece(
    model: SentencePieceModel,
    *,
    add_prefix_space: bool | None = None,
    first_only: bool = False,
    clean: Sequence[normalizers.Normalizer] = (),
) -> Backend:
    """The `tokenizers` pipeline that gives the ids of `model`; control pieces become its special tokens.

    add_prefix_space: instead of the model's own `add_dummy_prefix`. first_only: the space is put before the text, and
    not again after each special token in it. clean: what is done to the text before all else.
    Raises `TokenizerError` if the `tokenizers` library refuses a part, such as a damaged character map.
    """
    prefix = model.add_dummy_prefix if add_prefix_space is None else add_prefix_space
    with translated("the sentencepiece model cannot be rebuilt; it is damaged"):
        backend = Backend(_unigram(model) if model.algorithm is Algorithm.UNIGRAM else _bpe(model))
        backend.normalizer = _normalizer(model, clean, prefix and not first_only)
        if prefix and first_only:  # by the first step a space, since the text has none left; by the second its mark
            blanks = [pre_tokenizers.Metaspace(" ", "first", False), pre_tokenizers.Metaspace(SPACE, "never", False)]
            backend.pre_tokenizer = pre_tokenizers.Sequence(blanks)
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if prefix:
            steps.append(decoders.Strip(" ", 1, 0))
        backend.decoder = decoders.Sequence(steps)
        for piece in model.pieces:
            if piece.kind is Kind.CONTROL:
                backend.add_special_tokens([AddedToken(piece.text, normalized=False, special=True)])
            elif piece.kind is Kind.USER_DEFINED:
                backend.add_tokens([AddedToken(piece.text, normalized=True, special=False)])
    return backend


def _normalizer(
    model: SentencePieceModel, clean: Sequence[normalizers.Normalizer], prefix: bool
) -> normalizers.Normalizer:
    """First the characters' own map, then spaces: trimmed, joined, one put before, all marked.

    User-defined pieces are looked for in the text so cleaned, and the library cleans them too before it looks; they
    alone must get no space before them.
    """
    steps: list[normalizers.Normalizer] = list(clean)
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    user_defined = [re.escape(piece.text) for piece in model.pieces if piece.kind is Kind.USER_DEFINED]
    if prefix and user_defined:
        steps.append(normalizers.Replace(Regex(rf"\A(?!(?:{'|'.join(user_defined)})\z)(?=[\s\S])"), SPACE))
    elif prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps)


def _unigram(model: SentencePieceModel) -> Unigram:
    """User-defined pieces are cut out of the text beforehand, so their scores never count."""
    scores = [(piece.text, piece.score) for piece in model.pieces]
    return Unigram(scores, model.unk_id, model.byte_fallback)


def _bpe(model: SentencePieceModel) -> BPE:
    joinable = {piece.text: piece for piece in model.pieces if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED)}
    merges = []
    for piece in sorted(joinable.values(), key=lambda piece: -piece.score):
        for cut in range(1, len(piece.text)):
            left, right = piece.text[:cut], piece.text[cut:]
            if left in joinable and right in joinable:
                merges.append((left, right))
    vocabulary = {piece.text: id for id, piece in enumerate(model.pieces)}
    unknown = model.pieces[model.unk_id].text
    return BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)


def _check(model: SentencePieceModel) -> None:
    """What the format promises and a damaged or hostile file may not keep."""
    kinds = [piece.kind for piece in model.pieces]
    if kinds.count(Kind.UNKNOWN) != 1:
        raise TokenizerError(
            f"a sentencepiece model has one unknown piece, this file has {kinds.count(Kind.UNKNOWN)} among "
            f"{len(kinds)} pieces; it is damaged or no sentencepiece model"
        )
    if Kind.UNUSED in kinds:
        raise TokenizerError(f"piece {kinds.index(Kind.UNUSED)} is marked unused, which clearhead does not read")
    if model.byte_fallback and kinds.count(Kind.BYTE) != 256:
        raise TokenizerError(
            f"byte fallback needs 256 byte pieces, this sentencepiece model has {kinds.count(Kind.BYTE)}"
        )
    seen: dict[str, int] = {}
    for id, piece in enumerate(model.pieces):
        if piece.text in seen:
            raise TokenizerError(f"pieces {seen[piece.text]} and {id} are both {piece.text!r}; the model is damaged")
        seen[piece.text] = id


def _piece(message: bytes, id: int) -> Piece:
    spec = dict(fields(message))
    text, score, kind = spec.get(1, b""), spec.get(2, 0.0), spec.get(3, int(Kind.NORMAL))
    if not isinstance(text, bytes) or not isinstance(score, float) or not isinstance(kind, int):
        raise TokenizerError(f"piece {id} of the sentencepiece model has a field of the wrong type; it is damaged")
    try:
        piece = Piece(text.decode("utf-8"), score, Kind(kind))
    except ValueError:
        raise TokenizerError(f"piece {id} of the sentencepiece model has bad UTF-8 or an unknown kind") from None
    if not 0 < len(piece.text) <= LONGEST_PIECE:
        raise TokenizerError(f"piece {id} has {len(piece.text)} characters; 1 to {LONGEST_PIECE} are allowed")
    if not math.isfinite(score):
        raise TokenizerError(f"piece {id}, {piece.text!r}, has the score {score}; the sentencepiece model is damaged")
    return piece


def _message(value: Value, name: str) -> bytes:
    if not isinstance(value, bytes):
        raise TokenizerError(f"the {name} of the sentencepiece model is no message; the file is damaged")
    return value
