"""Vocabularies of older folders, as pipelines: the bare lists, and around them what the folder's class would do
(`classes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, WordPiece

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated
from clearhead.text.classes import TokenizerClass, codes_of, row_of
from clearhead.text.cut import backend_from_cut
from clearhead.text.languages import NONE, Languages
from clearhead.text.layout import laid_out
from clearhead.text.patterns import ONE_DIGIT
from clearhead.text.sentencepiece import backend_from_sentencepiece, parse
from clearhead.text.special import added_token, surround


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A vocabulary's pipeline, and the token of each role. target: of the texts that are written, where theirs is
    another. files: what it was read from, where a tokenizer.json cannot hold it."""

    backend: Backend
    roles: dict[str, str]
    languages: Languages = NONE
    target: Backend | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def from_bytes_bpe(vocabulary: dict[str, Any], merges: str, config: Mapping[str, Any]) -> Vocabulary:
    """GPT-2's byte-level BPE: each line of `merges` is a pair, the most frequent first."""
    row = row_of("bytes-bpe", config)
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
    if row.composed:
        backend.normalizer = normalizers.NFC()
    if row.one_digit:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(ONE_DIGIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
            ]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    return Vocabulary(backend=backend, roles=_specials(backend, row, dict(row.special_tokens), config))


def from_wordpiece(lines: str, config: Mapping[str, Any]) -> Vocabulary:
    """BERT's WordPiece: a token a line, the line's number its id. Text is lower-cased unless the config says no."""
    row = row_of("wordpiece", config)
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
    return Vocabulary(backend=backend, roles=_specials(backend, row, dict(row.special_tokens), config))


def from_sentencepiece(data: bytes, config: Mapping[str, Any]) -> Vocabulary:
    """A sentencepiece model, its pieces numbered as the class has them; see `sentencepiece.py` and `layout.py`."""
    row = row_of("sentencepiece", config)
    stated = config.get("added_tokens_decoder")
    ids = {int(id): token for id, token in stated.items()} if isinstance(stated, dict) else {}
    model = laid_out(parse(data), row.layout(config), ids)
    prefix = config.get("add_prefix_space")
    backend = backend_from_sentencepiece(
        model,
        add_prefix_space=None if prefix is None else bool(prefix),
        first_only=row.legacy_spaces and config.get("legacy") is False,
        clean=_folding(config) if row.folded else (),
    )
    roles = _specials(backend, row, {**row.special_tokens, **model.special_tokens()}, config)
    languages = languages_of(backend, row, config)
    return Vocabulary(backend=backend, roles=roles, languages=languages)


def from_m2m_100(data: bytes, vocabulary: dict[str, Any], config: Mapping[str, Any]) -> Vocabulary:
    """M2M-100: a sentencepiece model, the list that numbers its pieces, and the languages behind it."""
    row = row_of("m2m_100", config)
    codes = codes_of(row, config)
    whole = vocabulary | {token: len(vocabulary) + number for number, token in enumerate(codes.values())}
    backend = backend_from_cut(parse(data), whole, list(codes.values()))
    roles = _specials(backend, row, dict(row.special_tokens), config)
    return Vocabulary(backend=backend, roles=roles, languages=languages_of(backend, row, config))


def from_marian(
    source: bytes, target: bytes, vocabulary: dict[str, Any], other: dict[str, Any] | None, config: Mapping[str, Any]
) -> Vocabulary:
    """Marian: two sentencepiece models, one for what is read and one for what is written, and the list that numbers
    the pieces of both. other: the list of the second, where it has its own."""
    row = row_of("marian", config)
    reading, writing = (
        backend_from_cut(parse(data), numbers, [], told=True)
        for data, numbers in ((source, vocabulary), (target, vocabulary if other is None else other))
    )
    _specials(writing, row, dict(row.special_tokens), config)
    roles = _specials(reading, row, dict(row.special_tokens), config)
    codes = {token[2:-2]: token for token in vocabulary if token.startswith(">>") and token.endswith("<<")}
    return Vocabulary(backend=reading, roles=roles, languages=Languages(tokens=codes, place=row.place), target=writing)


def languages_of(backend: Backend, row: TokenizerClass, config: Mapping[str, Any]) -> Languages:
    """The languages of a class, as far as the pipeline has their tokens, with the text's own put beside it.

    Raises `TokenizerError` where the language that a text is in unless said is none of them.
    """
    if row.surrounds != "language":
        return NONE
    tokens = {code: token for code, token in codes_of(row, config).items() if backend.token_to_id(token) is not None}
    source, target = config.get("src_lang"), config.get("tgt_lang")
    for key, code in (("src_lang", source), ("tgt_lang", target)):
        if code is not None and not isinstance(code, str):
            raise TokenizerError(f"{key}={str(code)[:80]} in tokenizer_config.json is no language's code")
    found = Languages(
        tokens=tokens,
        place="behind" if config.get("legacy_behaviour") is True else row.place,
        source=source or row.default,
        target=target or source or row.default,
    )
    token, end = found.token(found.source), _text(config.get("eos_token"), row.special_tokens["eos"])
    if backend.token_to_id(end) is None:
        raise TokenizerError(f"the vocabulary has no {end!r}, which ends every text")
    behind = found.place == "behind"
    surround(backend, [] if behind else [token], [end, token] if behind else [end], joined=True)
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens.values()])
    return found


def _folding(config: Mapping[str, Any]) -> list[normalizers.Normalizer]:
    """ALBERT's clean-up: straight quotes, no accents, no capitals."""
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not config.get("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if config.get("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    return steps


def _specials(
    backend: Backend, row: TokenizerClass, roles: dict[str, str], config: Mapping[str, Any]
) -> dict[str, str]:
    """Give the class's special tokens their roles and their places around a text; the config's names come first."""
    for role in roles:
        roles[role] = _text(config.get(f"{role}_token"), roles[role])
    roles = {role: token for role, token in roles.items() if backend.token_to_id(token) is not None}
    for role, token in roles.items():
        named = config.get(f"{role}_token")
        lstrip = role == "mask" and row.wide_mask
        added = added_token(named) if isinstance(named, dict) else AddedToken(token, lstrip=lstrip, normalized=False)
        added.special = True
        backend.add_special_tokens([added])
    with translated("the special tokens cannot be put around a text"):
        if row.surrounds == "bert" and {"cls", "sep"} <= roles.keys():
            surround(backend, [roles["cls"]], [roles["sep"]], between=[])
        elif row.surrounds == "roberta" and {"cls", "sep"} <= roles.keys():
            _surround_twice(backend, row, roles, config)
        elif row.surrounds in ("eos", "eos once") and "eos" in roles:
            surround(backend, [], [roles["eos"]], joined=row.surrounds == "eos once")
        elif row.surrounds == "flags":
            _surround_by_flags(backend, row, roles, config)
    return roles


def _surround_twice(backend: Backend, row: TokenizerClass, roles: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """`<s> A </s>`, and with a second text `</s> B </s>` behind it."""
    if row.format != "bytes-bpe":
        surround(backend, [roles["cls"]], [roles["sep"]], between=[roles["sep"]], second=0)
        return
    backend.post_processor = processors.RobertaProcessing(
        (roles["sep"], backend.token_to_id(roles["sep"]) or 0),
        (roles["cls"], backend.token_to_id(roles["cls"]) or 0),
        trim_offsets=True,
        add_prefix_space=bool(config.get("add_prefix_space", False)),
    )


def _surround_by_flags(
    backend: Backend, row: TokenizerClass, roles: Mapping[str, str], config: Mapping[str, Any]
) -> None:
    before = [roles["bos"]] if config.get("add_bos_token", row.add_bos) and "bos" in roles else []
    after = [roles["eos"]] if config.get("add_eos_token", False) and "eos" in roles else []
    if before or after:
        surround(backend, before, after)


def _text(value: Any, default: str) -> str:
    return default if value is None else added_token(value).content
