"""Vocabularies of older folders. Before `tokenizer.json` a folder held bare lists (GPT-2's `vocab.json` and
`merges.txt`, BERT's `vocab.txt`, a sentencepiece `.model`), and the rest was code: the class that
`tokenizer_config.json` names.

`CLASSES` says what that code does, a row for each class known here. A class without a row may renumber its pieces or
lower-case its text, and would give wrong ids in silence; it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, WordPiece

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated
from clearhead.text.sentencepiece import backend_from_sentencepiece, parse
from clearhead.text.special import added_token, surround

Surrounds = Literal["flags", "bert", "roberta", "eos"]
"""What is put around a text: as `add_bos_token` and `add_eos_token` say, `[CLS] A [SEP]`, `<s> A </s>`, or `A </s>`."""


@dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """What the code of a Hugging Face tokenizer class adds to its vocabulary file."""

    format: Literal["bytes-bpe", "wordpiece", "sentencepiece"]
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    surrounds: Surrounds = "flags"
    add_bos: bool = False
    sentinels: int = 0
    """How many `<extra_id_…>` follow the vocabulary, the last number first, as in T5."""


_GPT2 = TokenizerClass(format="bytes-bpe", special_tokens={"bos": "<|endoftext|>", "eos": "<|endoftext|>"})
_ROBERTA = TokenizerClass(
    format="bytes-bpe",
    special_tokens={
        "bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>",
    },
    surrounds="roberta",
)  # fmt: skip
_BERT = TokenizerClass(
    format="wordpiece",
    special_tokens={"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"},
    surrounds="bert",
)
_LLAMA = TokenizerClass(
    format="sentencepiece", special_tokens={"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, add_bos=True
)
_GEMMA = TokenizerClass(
    format="sentencepiece",
    special_tokens={"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"},
    add_bos=True,
)
_T5 = TokenizerClass(
    format="sentencepiece",
    special_tokens={"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    surrounds="eos",
    sentinels=100,
)

CLASSES: Mapping[str, TokenizerClass] = {
    "GPT2Tokenizer": _GPT2,
    "CodeGenTokenizer": _GPT2,
    "RobertaTokenizer": _ROBERTA,
    "BartTokenizer": _ROBERTA,
    "LongformerTokenizer": _ROBERTA,
    "LEDTokenizer": _ROBERTA,
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "MobileBertTokenizer": _BERT,
    "LlamaTokenizer": _LLAMA,
    "CodeLlamaTokenizer": _LLAMA,
    "GemmaTokenizer": _GEMMA,
    "T5Tokenizer": _T5,
}
GENERIC = {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "SentencePieceBackend"}
UNNAMED = {"bytes-bpe": _GPT2, "wordpiece": _BERT, "sentencepiece": TokenizerClass(format="sentencepiece")}
"""What a folder without a class name holds."""


def from_bytes_bpe(
    vocabulary: dict[str, Any], merges: str, config: Mapping[str, Any]
) -> tuple[Backend, dict[str, str]]:
    """GPT-2's byte-level BPE: each line of `merges` is a pair, the most frequent first."""
    row = _row("bytes-bpe", config)
    if not all(isinstance(id, int) and 0 <= id < 1 << 32 for id in vocabulary.values()):
        raise TokenizerError("vocab.json should be an object from each token to its id, a whole number")
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(merges.split("\n"), 1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, space, right = line.partition(" ")
        if not (left and space and right) or " " in right:
            raise TokenizerError(f"line {number} of merges.txt is no pair of tokens: {line[:80]!r}")
        pairs.append((left, right))
    with translated("vocab.json and merges.txt do not belong together"):
        backend = Backend(BPE(vocabulary, pairs))
    prefix = bool(config.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    return backend, _specials(backend, row, dict(row.special_tokens), config)


def from_wordpiece(lines: str, config: Mapping[str, Any]) -> tuple[Backend, dict[str, str]]:
    """BERT's WordPiece: a token a line, the line's number its id. Text is lower-cased unless the config says no."""
    row = _row("wordpiece", config)
    tokens = [line.rstrip("\r") for line in lines.split("\n")]
    if tokens and not tokens[-1]:
        tokens.pop()
    unknown = _text(config.get("unk_token"), "[UNK]")
    if unknown not in tokens:
        raise TokenizerError(f"vocab.txt lacks the unknown token {unknown!r}; name the right one as unk_token")
    strip_accents = config.get("strip_accents")
    backend = Backend(WordPiece({token: id for id, token in enumerate(tokens)}, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=None if strip_accents is None else bool(strip_accents),
        lowercase=bool(config.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend, _specials(backend, row, dict(row.special_tokens), config)


def from_sentencepiece(data: bytes, config: Mapping[str, Any]) -> tuple[Backend, dict[str, str]]:
    """A sentencepiece model; see `sentencepiece.py`."""
    row = _row("sentencepiece", config)
    model = parse(data)
    prefix = config.get("add_prefix_space")
    backend = backend_from_sentencepiece(model, add_prefix_space=None if prefix is None else bool(prefix))
    count = config.get("extra_ids", row.sentinels) if row.sentinels else 0
    if not isinstance(count, int) or not 0 <= count <= 10_000:
        raise TokenizerError(f"extra_ids={count!r} in tokenizer_config.json should be a whole number up to 10000")
    backend.add_special_tokens([f"<extra_id_{number}>" for number in reversed(range(count))])
    return backend, _specials(backend, row, {**row.special_tokens, **model.special_tokens()}, config)


def _row(format: str, config: Mapping[str, Any]) -> TokenizerClass:
    name = config.get("tokenizer_class")
    plain = name.removesuffix("Fast") if isinstance(name, str) else None
    if plain is None or name in GENERIC or plain in GENERIC:
        return UNNAMED[format]
    row = CLASSES.get(plain)
    if row is None or row.format != format:
        raise TokenizerError(
            f"the vocabulary belongs to {name}, whose way with a {format} vocabulary is not known here; load it with "
            "transformers, save it (which writes a tokenizer.json), and load that"
        )
    return row


def _specials(
    backend: Backend, row: TokenizerClass, roles: dict[str, str], config: Mapping[str, Any]
) -> dict[str, str]:
    """Give the class's special tokens their roles and their places around a text; the config's names come first."""
    for role in roles:
        roles[role] = _text(config.get(f"{role}_token"), roles[role])
    roles = {role: token for role, token in roles.items() if backend.token_to_id(token) is not None}
    for role, token in roles.items():
        named = config.get(f"{role}_token")
        lstrip = role == "mask" and row.surrounds == "roberta"
        added = added_token(named) if isinstance(named, dict) else AddedToken(token, lstrip=lstrip, normalized=False)
        added.special = True
        backend.add_special_tokens([added])
    with translated("the special tokens cannot be put around a text"):
        if row.surrounds == "bert" and {"cls", "sep"} <= roles.keys():
            surround(backend, [roles["cls"]], [roles["sep"]], between=[])
        elif row.surrounds == "roberta" and {"cls", "sep"} <= roles.keys():
            prefix = bool(config.get("add_prefix_space", False))
            backend.post_processor = processors.RobertaProcessing(
                (roles["sep"], backend.token_to_id(roles["sep"]) or 0),
                (roles["cls"], backend.token_to_id(roles["cls"]) or 0),
                trim_offsets=True,
                add_prefix_space=prefix,
            )
        elif row.surrounds == "eos" and "eos" in roles:
            surround(backend, [], [roles["eos"]])
        elif row.surrounds == "flags":
            _surround_by_flags(backend, row, roles, config)
    return roles


def _surround_by_flags(
    backend: Backend, row: TokenizerClass, roles: Mapping[str, str], config: Mapping[str, Any]
) -> None:
    before = [roles["bos"]] if config.get("add_bos_token", row.add_bos) and "bos" in roles else []
    after = [roles["eos"]] if config.get("add_eos_token", False) and "eos" in roles else []
    if before or after:
        surround(backend, before, after)


def _text(value: Any, default: str) -> str:
    return default if value is None else added_token(value).content
