"""Special tokens: ids that no text spells by itself, each with a role. `[CLS]` opens, `<eos>` ends, `<pad>` fills.

A tokenizer's files say which token plays which role. Where none of them says, the spelling decides, by the table below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Backend

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated

ROLES = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
"""Padding, beginning and end of a text, unknown, classification, separator, mask: what a token can be for."""

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "bos": ("<bos>", "<s>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("<eos>", "</s>", "[EOS]", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
"""How each role is usually spelt, best first. GPT-2's `<|endoftext|>` both begins and ends a text."""


def roles_by_spelling(tokens: Iterable[str]) -> dict[str, str]:
    """The role of each of `tokens` that is spelt in a usual way; the others are special tokens without a role."""
    present = set(tokens)
    found = {
        role: next((token for token in spellings if token in present), None) for role, spellings in SPELLINGS.items()
    }
    return {role: token for role, token in found.items() if token is not None}


def named_roles(keywords: Mapping[str, object]) -> dict[str, str]:
    """Turn `pad_token="<pad>"` and its like into `{"pad": "<pad>"}`. Raises `TokenizerError` for another keyword."""
    roles: dict[str, str] = {}
    for name, token in keywords.items():
        role = name.removesuffix("_token")
        if role == name or role not in ROLES:
            known = ", ".join(f"{role}_token" for role in ROLES)
            raise TokenizerError(f"{name!r} is no special token's name; the names are {known}")
        if not isinstance(token, str) or not token:
            raise TokenizerError(f"{name}={token!r} is no token; give its text, such as {name}='<{role}>'")
        roles[role] = token
    return roles


def ids_of_roles(roles: Mapping[str, str], vocabulary: Mapping[str, int]) -> dict[str, int]:
    """The id of the token of each role. Raises `TokenizerError` for a token that the vocabulary lacks."""
    for role, token in roles.items():
        if token not in vocabulary:
            raise TokenizerError(f"{role}_token={token!r} is not in the vocabulary; add it first")
    return {role: vocabulary[token] for role, token in roles.items()}


def added_token(value: object, *, special: bool = True) -> AddedToken:
    """An added token from its text, or from its form in Hugging Face's files: `{"content": …, "lstrip": …, …}`."""
    if isinstance(value, str):
        value = {"content": value}
    if not isinstance(value, dict) or not isinstance(value.get("content"), str) or not value["content"]:
        raise TokenizerError(f"{str(value)[:80]!r} is no token; it should be a text or an object with a 'content'")
    flags = {name: bool(value.get(name, False)) for name in ("lstrip", "rstrip", "single_word")}
    special = bool(value.get("special", special))
    return AddedToken(value["content"], special=special, normalized=bool(value.get("normalized", not special)), **flags)


def add_tokens(backend: Backend, added: dict[int, Any]) -> None:
    """Add each token at its own id; it must fit, since the model's weights are numbered so."""
    known = {token.content: _flags(token) for token in backend.get_added_tokens_decoder().values()}
    for id in sorted(added):
        token = added_token(added[id], special=False)
        if known.get(token.content) != _flags(token):
            with translated(f"the added token {token.content!r} cannot be added"):
                add = backend.add_special_tokens if token.special else backend.add_tokens
                add([token])
        if backend.token_to_id(token.content) != id:
            raise TokenizerError(
                f"the added token {token.content!r} should have id {id}, and has {backend.token_to_id(token.content)} "
                "in this vocabulary; the files in this folder do not belong together"
            )


def _flags(token: AddedToken) -> tuple[bool, ...]:
    return (token.special, token.normalized, token.lstrip, token.rstrip, token.single_word)


def mark_special(backend: Backend, roles: dict[str, str], config: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Tokens with a role are special, and so are those that the config lists; as far as the vocabulary has them."""
    wanted = [config.get(f"{role}_token") or token for role, token in roles.items()]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        extra = config.get(key) or []
        wanted += list(extra.values()) if isinstance(extra, dict) else extra if isinstance(extra, list) else []
    known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for value in wanted:
        token = added_token(value)
        if token.content not in known and backend.token_to_id(token.content) is not None:
            token.special = True
            backend.add_special_tokens([token])


def surround(
    backend: Backend,
    before: list[str],
    after: list[str],
    *,
    between: list[str] | None = None,
    second: int = 1,
    joined: bool = False,
) -> None:
    """Make `backend` put the tokens `before` and `after` around every text.

    A second text is surrounded as the first one is. With `between` given, it follows after the first one's `after` and
    `between`, and is closed by `after` again: `[CLS] A [SEP]` + `B [SEP]`, all of the second part being of type
    `second`. `joined`: it is read as the first one's continuation, `before A B after`.
    """
    names = {
        token: token if not set(token) & set(":$ ") else f"special{n}"
        for n, token in enumerate([*before, *after, *(between or [])])
    }
    opening, closing = [names[token] for token in before], [names[token] for token in after]
    single = [*opening, "$A", *closing]
    if joined:
        pair = [*opening, "$A", "$B", *closing]
    elif between is None:
        pair = [*single, *opening, "$B", *closing]
    else:
        behind = [*(names[token] for token in between), "$B", *closing]
        pair = [*single, *(f"{name}:{second}" for name in behind)]
    table: list[dict[str, Any]] = [
        {"id": name, "ids": [backend.token_to_id(token)], "tokens": [token]} for token, name in names.items()
    ]
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=table)
