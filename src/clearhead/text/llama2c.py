"""llama2.c's tokenizer.bin: Llama's sentencepiece vocabulary as a list of scores and bytes, and nothing else.

Where a piece had `▁` it has a space here; `<s>` and `</s>` stand between line ends; older files have a byte's piece as
the character of that number. The first ids are fixed: unknown, beginning, end, then the 256 bytes.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

from clearhead.errors import TokenizerError
from clearhead.text.files import read_bytes
from clearhead.text.sentencepiece import (
    LONGEST_PIECE,
    SPACE,
    Algorithm,
    Kind,
    Piece,
    SentencePieceModel,
    backend_from_sentencepiece,
)
from clearhead.text.special import surround
from clearhead.text.tokenizer import Tokenizer

UNKNOWN, BEGIN, END, BYTES = 0, 1, 2, 3
NAMES = {UNKNOWN: "<unk>", BEGIN: "<s>", END: "</s>"}


def load_llama2c(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer.bin. The ids are those of llama2.c's run.c, which begins each text with `<s>`.

    Raises `TokenizerError` if the file is no such vocabulary.
    """
    texts, scores = _entries(Path(path))
    kinds = [Kind.NORMAL] * len(texts)
    if len(texts) < BYTES + 256:
        raise TokenizerError(f"{path} has {len(texts)} pieces, too few for the 256 bytes that they begin with")
    texts[UNKNOWN : END + 1] = NAMES.values()
    kinds[UNKNOWN : END + 1] = (Kind.UNKNOWN, Kind.CONTROL, Kind.CONTROL)
    for byte in range(256):
        id = BYTES + byte
        if texts[id] not in (f"<0x{byte:02X}>", chr(byte)):
            raise TokenizerError(f"{path}: piece {id} is {texts[id][:40]!r}, and should stand for byte {byte}")
        texts[id], kinds[id] = f"<0x{byte:02X}>", Kind.BYTE
    pieces = [
        Piece(text.replace(" ", SPACE), *how) for text, how in zip(texts, zip(scores, kinds, strict=True), strict=True)
    ]
    if len({piece.text for piece in pieces}) != len(pieces):
        raise TokenizerError(f"{path}: a piece stands in it twice; the file is damaged")
    backend = backend_from_sentencepiece(
        SentencePieceModel(
            pieces=pieces, algorithm=Algorithm.BPE, byte_fallback=True, remove_extra_whitespaces=False, unk_id=UNKNOWN
        )
    )
    surround(backend, [NAMES[BEGIN]], [])
    return Tokenizer.from_backend(backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _entries(path: Path) -> tuple[list[str], list[float]]:
    """The pieces and their scores: after the longest one's length, a score, a length and the bytes of each."""
    data = read_bytes(path)
    texts: list[str] = []
    scores: list[float] = []
    at = 4
    while at < len(data):
        if len(data) - at < 8:
            raise TokenizerError(f"{path} ends within a piece, at byte {at}; the file was cut short")
        score, length = struct.unpack_from("<fI", data, at)
        at += 8
        if not 0 < length <= min(4 * LONGEST_PIECE, len(data) - at) or not math.isfinite(score):
            raise TokenizerError(f"{path}: piece {len(texts)} of {length} bytes and score {score} cannot be")
        try:
            texts.append(data[at : at + length].decode("utf-8"))
        except UnicodeDecodeError:
            raise TokenizerError(f"{path}: piece {len(texts)} is not UTF-8; it is no tokenizer.bin") from None
        scores.append(score)
        at += length
    return texts, scores
