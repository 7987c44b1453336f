"""The shelf. The looks that are kept. When it is full, the one used least recently goes and gives its tensors back."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from clearhead.errors import ReleasedError
from clearhead.lens.look import Look
from clearhead.serve.refusals import Refusal


class Question(NamedTuple):
    """What is asked: the same question has the same look. target: None is what the model itself writes, where it reads
    two texts; the languages are for a translator that is told them."""

    model: str
    text: str
    target: str | None = None
    source_language: str | None = None
    target_language: str | None = None

    @property
    def languages(self) -> dict[str, str]:
        """The languages that were named, as `look` and `generate` take them."""
        named = {"source_language": self.source_language, "target_language": self.target_language}
        return {name: language for name, language in named.items() if language is not None}


@dataclass(frozen=True)
class Kept:
    """A look on the shelf, under a name that cannot be guessed."""

    question: Question
    look: Look
    facts: dict[str, object]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))


class Shelf:
    """At most `most` looks and about `most_bytes` of their tensors. Used from the event loop only."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._dropped: deque[str] = deque(maxlen=1000)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors that are kept."""
        return sum(kept.look.seen.nbytes for kept in self._kept.values())

    def find(self, question: Question) -> Kept | None:
        """The look at this text, if it is still here."""
        kept = next((kept for kept in self._kept.values() if kept.question == question), None)
        return None if kept is None else self.get(kept.id)

    def get(self, name: str) -> Kept:
        """The look of that name. Raises ReleasedError for one that was dropped, a 404 for one that never was."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        if name in self._dropped:
            raise ReleasedError(f"look {name} was let go to make room; look at the text again.")
        raise Refusal(
            404, "there is no such look here (the server may have been started anew); look at the text again."
        )

    def put(self, kept: Kept) -> None:
        """Keep it, and drop what has become too much."""
        self._kept[kept.id] = kept
        while len(self._kept) > 1 and (len(self._kept) > self.most or self.nbytes > self.most_bytes):
            name, oldest = self._kept.popitem(last=False)
            self._dropped.append(name)
            oldest.look.release()
