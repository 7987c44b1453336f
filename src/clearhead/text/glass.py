"""glassllm's tokenizer, whose models come inside its Python package: an alphabet of characters and a list of merges.

Its rules in the words of the `tokenizers` library: compose characters (NFC), write a space as `▁`, cut at line ends and
before each run of `▁`, and join the best-ranked pair of neighbours until none is left.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeGuard

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated
from clearhead.text.files import read_json
from clearhead.text.tokenizer import Tokenizer

SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
CHUNK = Regex(r"\n|▁*[^▁\n]+|▁+")
UNKNOWN_TEXT = "⁇"


def load_glass(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a `*.tokenizer.json` of glassllm. The ids, and the text of any ids, are those of its own tokenizer.

    Text that spells a special token stays text, as there. Raises `TokenizerError` if the file is no such tokenizer.
    """
    data = read_json(Path(path))
    try:
        return from_glass(data)
    except TokenizerError as problem:
        raise TokenizerError(f"{path}: {problem}") from problem


def from_glass(data: dict[str, Any]) -> Tokenizer:
    """The same from the object in such a file: `{"version": 1, "alphabet": […], "merges": [[…, …], …]}`."""
    alphabet, merges = data.get("alphabet"), data.get("merges")
    if data.get("version") != 1 or not _texts(alphabet) or not isinstance(merges, list):
        raise TokenizerError("this is no glassllm tokenizer; it should hold version 1, an alphabet and merges")
    if not all(_texts(pair) and len(pair) == 2 for pair in merges):
        raise TokenizerError("a merge in this glassllm tokenizer is no pair of texts; the file is damaged")
    pairs = [(left, right) for left, right in merges]
    tokens = list(SPECIALS) + alphabet + [left + right for left, right in pairs]
    if len(set(tokens)) != len(tokens):
        raise TokenizerError("a token stands twice in this glassllm tokenizer; the file is damaged")
    with translated("this glassllm tokenizer cannot be rebuilt"):
        backend = Backend(BPE({token: id for id, token in enumerate(tokens)}, pairs, unk_token="<unk>"))
        backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", "▁")])
        backend.pre_tokenizer = pre_tokenizers.Split(CHUNK, "isolated")
        backend.decoder = decoders.Sequence(
            [decoders.Replace("<unk>", UNKNOWN_TEXT), decoders.Replace("▁", " "), decoders.Fuse()]
        )
        # The unknown token is left out: it has a text of its own, and is shown.
        backend.add_special_tokens(
            [AddedToken(token, normalized=False, special=True) for token in SPECIALS if token != "<unk>"]
        )
    return Tokenizer.from_backend(
        backend,
        split_special_tokens=True,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
    )


def _texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
