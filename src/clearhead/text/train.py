"""Training a tokenizer: which pieces of text deserve an id of their own? Six answers, from none learned to all.

    byte         256 ids, one a byte; nothing to learn, and no text that cannot be written
    character    one id a character that was seen
    byte-bpe     bytes, then again and again the most frequent pair of neighbours becomes one token (GPT-2)
    bpe          the same, from characters (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909)
    wordpiece    BERT's: lower-cased words, cut into the longest known pieces; `##` marks a piece inside a word
    unigram      start with too many pieces, and drop those whose loss costs the least likelihood
                 (Kudo 2018, https://arxiv.org/abs/1804.10959)

`byte` is `byte-bpe` without merges, and `character` is `bpe` without merges. All but wordpiece keep spaces inside the
tokens (` street`), so that joining the tokens gives back the text, to the last blank.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, Unigram, WordPiece

from clearhead.errors import TokenizerError
from clearhead.text.backend import byte_alphabet, translated
from clearhead.text.special import named_roles, roles_by_spelling, surround

Kind = Literal["byte", "character", "byte-bpe", "bpe", "wordpiece", "unigram"]
KINDS: tuple[str, ...] = get_args(Kind)

UNKNOWN = {"character": "<unk>", "bpe": "<unk>", "wordpiece": "[UNK]", "unigram": "<unk>"}
"""Kinds that meet characters they have not seen, and the token that stands for one where no other is named."""

BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_WAY_OUT = ", or kind='byte-bpe', which writes any text with 256 tokens"

WORDS = Regex(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s")
"""No token of `bpe` and `unigram` crosses these: a word or a run of signs, with one space before it, or blanks."""


def asked_specials(kind: Any, special_tokens: Any) -> tuple[list[str], dict[str, str]]:
    """The special tokens that a caller of `Tokenizer.train` asks for, in order, and the token of each role."""
    if special_tokens is None:
        special_tokens = BERT_SPECIALS if kind == "wordpiece" else ()
    if isinstance(special_tokens, Mapping):
        roles = named_roles(special_tokens)
        specials = list(dict.fromkeys(roles.values()))
    elif not isinstance(special_tokens, Iterable):
        raise TokenizerError(f"special_tokens={special_tokens!r} should be texts, such as ['<bos>', '<eos>']")
    else:
        specials = list(dict.fromkeys([special_tokens] if isinstance(special_tokens, str) else special_tokens))
        if not all(isinstance(token, str) and token for token in specials):
            raise TokenizerError(f"special_tokens={specials!r} should be texts, such as ['<bos>', '<eos>']")
        roles = roles_by_spelling(specials)
    if kind not in tuple(UNKNOWN):
        roles.pop("unk", None)  # bytes leave nothing unknown
    return specials, roles


def train(texts: Iterable[Any], kind: Any, vocab_size: Any, specials: list[str], roles: dict[str, str]) -> Backend:
    """The `tokenizers` pipeline of `kind`, learned from `texts`; `Tokenizer.train` says what is promised.

    `specials` get the first ids, in their order (the last ones with `byte`, whose first 256 ids are the bytes). `roles`
    is completed with the unknown token where the kind needs one.
    """
    if kind not in KINDS:
        raise TokenizerError(f"{kind!r} is no kind of tokenizer; choose one of {', '.join(KINDS)}")
    if vocab_size is not None and (isinstance(vocab_size, bool) or not isinstance(vocab_size, int) or vocab_size < 1):
        raise TokenizerError(f"vocab_size={vocab_size!r} should be a whole number of tokens, such as 8000")
    if vocab_size is None and kind not in ("byte", "character"):
        raise TokenizerError(f"a {kind} tokenizer learns as many tokens as it is told; give vocab_size, such as 8000")
    if kind in UNKNOWN and "unk" not in roles:
        roles["unk"] = UNKNOWN[kind]
        specials.insert(0, roles["unk"])
    with translated(f"a {kind} tokenizer cannot be trained on these texts"):
        if kind == "byte":
            backend = _byte(specials)
        else:
            corpus = _checked([texts] if isinstance(texts, str) else texts)
            backend = _LEARN[kind](corpus, vocab_size or 0, specials, roles)
    size = backend.get_vocab_size()
    if vocab_size is not None and size > vocab_size:
        raise TokenizerError(
            f"vocab_size={vocab_size} is too small: the special tokens and single characters of these texts take "
            f"{size}; choose {size} or more{_WAY_OUT if kind in UNKNOWN else ''}"
        )
    if kind != "byte":
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    with translated("the special tokens cannot be put around a text"):
        if {"cls", "sep"} <= roles.keys():
            surround(backend, [roles["cls"]], [roles["sep"]], between=[])
        elif "bos" in roles and roles["bos"] != roles.get("eos"):
            surround(backend, [roles["bos"]], [])
    return backend


def _checked(texts: Iterable[Any]) -> Iterator[str]:
    """The texts, each seen to be one that can be encoded; at least one that is not empty."""
    something = False
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TokenizerError(f"text {number} is a {type(text).__name__}; give an iterable of str")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as problem:
            raise TokenizerError(
                f"text {number} has a lone surrogate, {text[problem.start]!r}, at character {problem.start}, which no "
                "file can hold; remove it"
            ) from None
        something = something or bool(text)
        yield text
    if not something:
        raise TokenizerError("there is no text to learn from; give at least one that is not empty")


def _byte(specials: list[str]) -> Backend:
    alphabet = sorted(byte_alphabet().items(), key=lambda entry: entry[1])
    backend = _of_bytes(dict(alphabet))
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    return backend


def _of_bytes(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]] = ()) -> Backend:
    backend = Backend(BPE(vocabulary, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return backend


def _of_characters(model: BPE | Unigram) -> Backend:
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Split(WORDS, "isolated")
    backend.decoder = decoders.Fuse()
    return backend


def _character(texts: Iterator[str], vocab_size: int, specials: list[str], roles: dict[str, str]) -> Backend:
    alphabet: set[str] = set()
    for text in texts:
        alphabet.update(text)
    vocabulary = {token: id for id, token in enumerate([*specials, *sorted(alphabet - set(specials))])}
    return _of_characters(BPE(vocabulary, [], unk_token=roles["unk"]))


def _byte_bpe(texts: Iterator[str], vocab_size: int, specials: list[str], roles: dict[str, str]) -> Backend:
    backend = _of_bytes({})
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _bpe(texts: Iterator[str], vocab_size: int, specials: list[str], roles: dict[str, str]) -> Backend:
    backend = _of_characters(BPE(unk_token=roles["unk"]))
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(specials), show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return backend


def _wordpiece(texts: Iterator[str], vocab_size: int, specials: list[str], roles: dict[str, str]) -> Backend:
    """In two rounds, so that the result is one and the same each time. The library numbers the `##` characters in the
    order of a hash table, and breaks ties by number: the first round finds them, the second is told their order."""
    corpus = list(texts)
    first = _wordpiece_round(corpus, 1, specials, roles)
    inner = sorted(token for token in first.get_vocab() if token.startswith("##") and len(token) == 3)
    second = _wordpiece_round(
        corpus, vocab_size, [*specials, *(token for token in inner if token not in specials)], roles
    )
    backend = _of_wordpieces(WordPiece(second.get_vocab(), unk_token=roles["unk"]))
    return backend


def _wordpiece_round(texts: list[str], vocab_size: int, specials: list[str], roles: dict[str, str]) -> Backend:
    backend = _of_wordpieces(WordPiece(unk_token=roles["unk"]))
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=list(specials), show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return backend


def _of_wordpieces(model: WordPiece) -> Backend:
    backend = Backend(model)
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _unigram(texts: Iterator[str], vocab_size: int, specials: list[str], roles: dict[str, str]) -> Backend:
    """The library adds up probabilities in whatever order its threads finish, and numbers ties by a hash table; its
    scores are rounded and put in order, so that the same texts give the same file."""
    backend = _of_characters(Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=list(specials), unk_token=roles["unk"], show_progress=False
    )
    try:
        backend.train_from_iterator(texts, trainer)
    except Exception as problem:
        if "not large enough" in str(problem):
            raise TokenizerError(
                f"vocab_size={vocab_size} is too small for the special tokens and single characters of these texts; "
                f"choose more{_WAY_OUT}"
            ) from None
        raise
    learned = [
        (piece, score) for piece, score in json.loads(backend.to_str())["model"]["vocab"] if piece not in specials
    ]
    lowest = min(score for _, score in learned)
    singles = sum(len(piece) == 1 for piece, _ in learned)
    # A character too rare to be a piece is one all the same: with the lowest score, plus 0.0001 × its hash-table rank.
    steady = [
        (piece, round(lowest if len(piece) == 1 and score < lowest + 0.0001 * singles else score, 4))
        for piece, score in learned
    ]
    vocabulary = [(token, 0.0) for token in specials] + sorted(steady, key=lambda entry: (-entry[1], entry[0]))
    return _of_characters(Unigram(vocabulary, unk_id=specials.index(roles["unk"])))


_LEARN = {
    "character": _character,
    "byte-bpe": _byte_bpe,
    "bpe": _bpe,
    "wordpiece": _wordpiece,
    "unigram": _unigram,
}
