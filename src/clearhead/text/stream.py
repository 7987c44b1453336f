"""Streaming. A model writes one id at a time, and an id may be half a character: hold it until the character is whole.

Only tokens made of bytes can break a character, so those alone are watched, with Python's own incremental UTF-8
decoder. What a token adds to the text also depends on its left neighbour (a word's first piece has a space before it,
but not at the very start), so each new token is decoded together with the ones shown last.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Decodes(Protocol):
    """What a stream needs of a tokenizer."""

    def decode(self, ids: list[int], skip_special: bool = True) -> str: ...
    def bytes_of(self, id: int) -> bytes: ...
    def is_special(self, id: int) -> bool: ...


class DetokenizeStream:
    """Text from ids, as they come. What `push` returned, and then `finish`, add up to what `decode` gives for all ids.

    before: ids of text that is there already, such as a prompt. It is not given out again, but joined to.
    """

    def __init__(self, tokenizer: Decodes, before: Sequence[int] = (), *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._ids = list(before)
        self._length = len(tokenizer.decode(self._ids, skip_special))
        text = [id for id in self._ids if not (skip_special and tokenizer.is_special(id))]
        self._shown = text[-1:]  # the ids of the last text given out: what new text is joined to
        self._held: list[int] = []  # the ids since then, which end inside a character
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """Take the next id and give the text that it completes: often one piece, "" while a character is unfinished.

        Raises `TokenizerError` for an id that the tokenizer does not have.
        """
        self._tokenizer.decode([id], self._skip_special)  # so that a bad id is refused before it is kept
        self._ids.append(id)
        if self._skip_special and self._tokenizer.is_special(id):
            return ""
        self._held.append(id)
        self._utf8.decode(self._tokenizer.bytes_of(id))
        if self._utf8.getstate()[0]:
            return ""
        before = self._tokenizer.decode(self._shown, self._skip_special)
        after = self._tokenizer.decode(self._shown + self._held, self._skip_special)
        if not after.startswith(before):
            return ""
        text = after[len(before) :]
        self._shown, self._held = self._held, []
        self._length += len(text)
        return text

    def finish(self) -> str:
        """What is left once no more ids come, such as U+FFFD for a character that was never finished."""
        rest = self._tokenizer.decode(self._ids, self._skip_special)[self._length :]
        self._length += len(rest)
        self._shown, self._held = [], []
        return rest
