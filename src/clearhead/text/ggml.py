"""Tokenizers inside GGUF files: the lists that llama.cpp keeps (tokens, scores, kinds, merges), as a pipeline of the
`tokenizers` library.

A byte-level vocabulary comes with the name of a pattern that cuts the text first; a name without a row in `PATTERNS`
would give wrong ids in silence, and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated
from clearhead.text.patterns import ONE_DIGIT, THREE_DIGITS, WORDS
from clearhead.text.sentencepiece import Algorithm, Kind, Piece, SentencePieceModel, backend_from_sentencepiece
from clearhead.text.special import surround
from clearhead.text.tokenizer import Tokenizer

SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r")
"""Where each digit is cut off by itself first."""
PATTERNS: Mapping[str, str] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", *SINGLE_DIGITS), WORDS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), THREE_DIGITS),
    **dict.fromkeys(("qwen2", "stablelm2"), ONE_DIGIT),
}
"""How a byte-level tokenizer cuts a text, by the name that llama.cpp has for it."""
WHOLE_FIRST = ("llama-bpe", "llama3", "llama-v3")
"""Where a piece that is a token is left whole, and a text begins with its mark unless the file says no."""
COMPOSED = ("qwen2",)
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}
"""Our roles, and llama.cpp's words for them (one of which it misspells)."""
BYTES = 256


def unreadable(metadata: Mapping[str, Any]) -> str | None:
    """Why the file's tokenizer is none that we have, or None where it is, or where there is none at all."""
    kind, pattern = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind in (None, "none", "no_vocab", "llama", "t5"):
        return None
    if kind != "gpt2":
        return f"tokenizers of the kind {str(kind)[:40]!r} are not read from GGUF"
    return None if pattern in PATTERNS else f"how {str(pattern)[:40]!r} cuts a text is not known here"


def load_ggml(metadata: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of a file's metadata, or None where it has none that we read. Raises `TokenizerError`."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab") or unreadable(metadata) is not None:
        return None
    tokens = _list(metadata, "tokens", str)
    if len(set(tokens)) != len(tokens) or not tokens:
        raise TokenizerError("a token stands twice in the GGUF file's vocabulary, or none at all; it is damaged")
    kinds = _kinds(metadata, len(tokens))
    roles = {role: _role(metadata, name, tokens) for role, name in ROLES.items()}
    backend = _bytes(metadata, tokens, kinds) if kind == "gpt2" else _pieces(metadata, tokens, kinds, str(kind))
    named: dict[str, Any] = {f"{role}_token": token for role, token in roles.items() if token is not None}
    _surround(metadata, backend, str(kind), roles)
    template = metadata.get("tokenizer.chat_template")
    return Tokenizer.from_backend(backend, chat_template=template if isinstance(template, str) else None, **named)


def _list(metadata: Mapping[str, Any], name: str, kind: type, *, length: int | None = None) -> list[Any]:
    values = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise TokenizerError(f"the GGUF file's tokenizer has no list of {name}; convert the model again")
    if length is not None and len(values) != length:
        raise TokenizerError(f"the GGUF file has {len(values)} {name} for {length} tokens; it is damaged")
    return values


def _kinds(metadata: Mapping[str, Any], length: int) -> list[Kind]:
    if "tokenizer.ggml.token_type" not in metadata:
        return [Kind.NORMAL] * length
    try:
        return [Kind(number) for number in _list(metadata, "token_type", int, length=length)]
    except ValueError as problem:
        raise TokenizerError(f"a token of the GGUF file has an unknown kind: {problem}") from None


def _role(metadata: Mapping[str, Any], name: str, tokens: list[str]) -> str | None:
    id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return tokens[id] if type(id) is int and 0 <= id < len(tokens) else None


def _flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.{name}", default)
    if not isinstance(value, bool):
        raise TokenizerError(f"tokenizer.ggml.{name} is {str(value)[:40]!r}, and should be true or false")
    return value


def _pieces(metadata: Mapping[str, Any], tokens: list[str], kinds: list[Kind], kind: str) -> Backend:
    """A sentencepiece vocabulary: BPE for Llama and Gemma, Unigram for T5."""
    scores = _list(metadata, "scores", float, length=len(tokens))
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", kinds.index(Kind.UNKNOWN) if Kind.UNKNOWN in kinds else 0)
    if type(unknown) is not int or not 0 <= unknown < len(tokens):
        raise TokenizerError(f"the GGUF file's unknown token is {str(unknown)[:40]!r}, which is no id; it is damaged")
    if any(not text for text, one in zip(tokens, kinds, strict=True) if one is not Kind.UNUSED):
        raise TokenizerError("a token of the GGUF file is empty; the file is damaged")
    charsmap = metadata.get("tokenizer.ggml.precompiled_charsmap", [])
    try:
        charsmap = bytes(value % BYTES for value in charsmap)
    except TypeError:
        raise TokenizerError("the GGUF file's character map is no list of bytes; it is damaged") from None
    return backend_from_sentencepiece(
        SentencePieceModel(
            pieces=[Piece(*one) for one in zip(tokens, scores, kinds, strict=True)],
            algorithm=Algorithm.UNIGRAM if kind == "t5" else Algorithm.BPE,
            byte_fallback=kinds.count(Kind.BYTE) == BYTES,
            charsmap=charsmap,
            add_dummy_prefix=_flag(metadata, "add_space_prefix", True),
            remove_extra_whitespaces=_flag(metadata, "remove_extra_whitespaces", False),
            unk_id=unknown,
        )
    )


def _bytes(metadata: Mapping[str, Any], tokens: list[str], kinds: list[Kind]) -> Backend:
    """A byte-level vocabulary and its merges."""
    merges: list[tuple[str, str]] = []
    for line in _list(metadata, "merges", str):
        left, space, right = line.partition(" ")
        if not (left and space and right) or " " in right:
            raise TokenizerError(f"a merge of the GGUF file is no pair of tokens: {line[:80]!r}")
        merges.append((left, right))
    pattern = metadata.get("tokenizer.ggml.pre", "default")
    with translated("the GGUF file's tokens and merges do not belong together"):
        vocabulary = {token: id for id, token in enumerate(tokens)}
        backend = Backend(BPE(vocabulary, merges, ignore_merges=pattern in WHOLE_FIRST))
        if pattern in COMPOSED:
            backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *([pre_tokenizers.Digits(individual_digits=True)] if pattern in SINGLE_DIGITS else []),
                pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        of_kind = list(zip(tokens, kinds, strict=True))
        special = [token for token, kind in of_kind if kind in (Kind.CONTROL, Kind.UNKNOWN)]
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
        others = [token for token, kind in of_kind if kind is Kind.USER_DEFINED]
        backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in others])
    return backend


def _surround(metadata: Mapping[str, Any], backend: Backend, kind: str, roles: Mapping[str, str | None]) -> None:
    bos_by_default = kind == "llama" or metadata.get("tokenizer.ggml.pre") in WHOLE_FIRST
    before = [roles["bos"]] if _flag(metadata, "add_bos_token", bos_by_default) and roles["bos"] else []
    after = [roles["eos"]] if _flag(metadata, "add_eos_token", kind == "t5") and roles["eos"] else []
    if before or after:
        with translated("the GGUF file's special tokens cannot be put around a text"):
            surround(backend, [one for one in before if one], [one for one in after if one])
