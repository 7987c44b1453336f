"""Llama 3's tokenizer.model as Meta gives it out: a line for each token, its bytes in base64 and its rank.

It is byte-level BPE, where the pair that makes the token of the lowest rank is joined first. The special tokens are not
in the file, and follow its own.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from clearhead.errors import TokenizerError
from clearhead.text.backend import byte_alphabet, translated
from clearhead.text.files import read_bytes
from clearhead.text.patterns import THREE_DIGITS
from clearhead.text.sentencepiece import LONGEST_PIECE
from clearhead.text.special import surround
from clearhead.text.tokenizer import Tokenizer

SPECIALS = 256
"""How many special tokens follow the file's own."""
NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}
"""Those that Llama 3.1 and later give a name; the others are reserved, and numbered."""


def is_tiktoken(path: Path) -> bool:
    """Whether a file begins as such a list does."""
    with path.open("rb") as file:
        first = file.read(4096).split(b"\n", 1)[0].split(b" ")
    return len(first) == 2 and first[1].strip() == b"0"


def load_tiktoken(path: str | os.PathLike[str]) -> Tokenizer:
    """Read Llama 3's tokenizer.model. Raises `TokenizerError` if it is no such list."""
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    tokens: list[str] = []
    for number, line in enumerate(read_bytes(Path(path)).split(b"\n"), 1):
        if not line:
            continue
        text, _, rank = line.partition(b" ")
        try:
            piece = base64.b64decode(text, validate=True)
            right = int(rank) == len(tokens)
        except (ValueError, binascii.Error):
            raise TokenizerError(f"{path}: line {number} is no token in base64 and its rank") from None
        if not right or not 0 < len(piece) <= LONGEST_PIECE:
            raise TokenizerError(f"{path}: line {number} is out of order, or no token; the file is damaged")
        tokens.append("".join(letters[byte] for byte in piece))
    vocabulary = {token: rank for rank, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or not set(letters.values()) <= set(vocabulary):
        raise TokenizerError(f"{path}: a token stands in it twice, or a byte is missing; the file is damaged")
    special = [NAMED.get(number, f"<|reserved_special_token_{number}|>") for number in range(SPECIALS)]
    with translated(f"{path} cannot be rebuilt"):
        backend = Backend(BPE(vocabulary, _merges(vocabulary), ignore_merges=True))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(THREE_DIGITS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    surround(backend, [NAMED[0]], [])
    return Tokenizer.from_backend(backend, bos_token=NAMED[0], eos_token=NAMED[1])


def _merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair that makes a token, in the tokens' order; of one token's pairs, that of the lowest ranks first."""
    merges: list[tuple[str, str]] = []
    for token in vocabulary:
        cuts = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in cuts if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges
