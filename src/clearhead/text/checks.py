"""What goes into the backend, checked: a text is a str of whole characters, an id is a number that a token has."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer as Backend

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated


def encoded(backend: Backend, text: Any, pair: Any, special: bool, *, quick: bool = False) -> Any:
    """The backend's own encoding; `quick`: the same ids, without the offsets. Raises `TokenizerError`."""
    for name, given in (("text", text), ("pair", pair)):
        if not isinstance(given, str) and (given is not None or name == "text"):
            raise TokenizerError(f"the {name} is of type {type(given).__name__}; give a str")
    try:
        with translated("the text cannot be encoded"):
            if quick:
                return backend.encode_batch_fast([text], add_special_tokens=special)[0]
            return backend.encode(text, pair, add_special_tokens=special)
    except TokenizerError:
        for name, given in (("text", text), ("pair", pair or "")):
            lone = next((at for at, character in enumerate(given) if "\ud800" <= character <= "\udfff"), None)
            if lone is not None:
                raise TokenizerError(
                    f"the {name} has a lone surrogate, {given[lone]!r}, at character {lone}, which stands for "
                    "nothing; remove it, or decode the file it came from with errors='replace'"
                ) from None
        raise


def checked_ids(ids: Any, backend: Backend, vocab_size: int) -> list[int]:
    """Ids as numbers, each of them a token's. Raises `TokenizerError`."""
    if not isinstance(ids, Iterable):
        raise TokenizerError(f"{ids!r} is no list of ids; give one, such as [{ids!r}]")
    return [checked_id(id, backend, vocab_size) for id in ids]


def checked_id(id: Any, backend: Backend, vocab_size: int) -> int:
    """An id as a number that a token has. Raises `TokenizerError`."""
    try:
        number = operator.index(id)
    except TypeError:
        raise TokenizerError(f"{id!r} is no id; ids are whole numbers below {vocab_size}") from None
    if not 0 <= number < vocab_size or backend.id_to_token(number) is None:
        raise TokenizerError(f"no token has the id {number}; this tokenizer's ids are below {vocab_size}")
    return number
