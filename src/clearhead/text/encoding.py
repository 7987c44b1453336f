"""An encoding: what became of a text, token by token, with the way back to its characters.

The offsets are the backend's, mended in two places, and so are the words where the backend knows none.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text, or a pair of texts, as tokens. The lists are of one length, an entry a token.

    ids        what the model reads
    tokens     the tokens as the vocabulary spells them (`Ġstreet`, `▁street`, `##ing`)
    labels     the tokens as people read them (` street`, `##ing`, `[CLS]`); see `Tokenizer.labels`
    offsets    `text[a:b]` is what the token was read from, in characters of the text it belongs to; (0, 0) if none.
               Tokens that share a character, such as the bytes of 🙂, each point at the whole of it
    type_ids   0 for the first text, 1 for the second, where the tokenizer tells them apart
    special    True for special tokens, added or spelt in the text; the unknown token stands for text and is not one
    words      the number of the word, in its text, that the token is part of; None for tokens added around a text
    sequences  0 if the token is of the first text, 1 if of the second, None if it was added around them
    """

    ids: list[int]
    tokens: list[str]
    labels: list[str]
    offsets: list[tuple[int, int]]
    type_ids: list[int]
    special: list[bool]
    words: list[int | None]
    sequences: list[int | None]

    def __len__(self) -> int:
        return len(self.ids)


class Raw(NamedTuple):
    """What the backend says of a text, token by token."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    type_ids: list[int]
    words: list[int | None]
    sequences: list[int | None]


def mended_offsets(
    offsets: list[tuple[int, int]],
    tokens: list[str],
    sequences: list[int | None],
    texts: tuple[str, str],
    *,
    marks: bool,
) -> list[tuple[int, int]]:
    """Offsets in which a lone `▁` put before a text (`marks`: where `▁` stands for a space) was read from nothing, and
    an accent that the clean-up joined to the letter before it belongs to that letter's token."""
    if not marks and all(text.isascii() for text in texts):
        return offsets
    mended = list(offsets)
    for at, (start, end) in enumerate(offsets):
        sequence = sequences[at]
        if sequence is None:
            continue
        follows = at + 1 < len(offsets) and sequences[at + 1] == sequence
        after = offsets[at + 1][0] if follows else len(texts[sequence])
        if marks and tokens[at] == "▁" and end > start == after:
            mended[at] = (start, start)
        elif after > end > start:
            while end < after and unicodedata.combining(texts[sequence][end]):
                end += 1
            mended[at] = (start, end)
    return mended


def words_by_marks(tokens: list[str], sequences: list[int | None]) -> list[int | None]:
    """The number of each token's word where `▁` begins one; numbers start again with a second text."""
    words: list[int | None] = []
    number, before = -1, None
    for token, sequence in zip(tokens, sequences, strict=True):
        if sequence is None:
            words.append(None)
            continue
        if sequence != before:
            number, before = 0, sequence
        elif token.startswith("▁"):
            number += 1
        words.append(number)
    return words
