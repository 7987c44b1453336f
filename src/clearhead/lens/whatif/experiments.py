"""Experiments, in words: what a user asks to be changed, with the text's own words for its tokens.

Each becomes the `with` block of `silencing.py` or `rerun.py` that does it. Several may be asked for at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from clearhead.errors import InputError
from clearhead.lens.counting import counted
from clearhead.lens.reading import Reading, read
from clearhead.lens.seen import Kind
from clearhead.lens.texts import Readable
from clearhead.lens.whatif.edited import check_heads
from clearhead.lens.whatif.rerun import Outputs, cut, patch, rescore
from clearhead.lens.whatif.rescoring import Rescoring, check_rescoring
from clearhead.lens.whatif.silencing import How, Means, silence

Heads = Sequence[tuple[int, int]]
Word = str | int
"""A word of the text, its n-th occurrence as `word#n`, or a token by its index; see `Look.find`."""


class Experiment(ABC):
    """Something to change while a text is read."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What is changed, in a few words."""

    @abstractmethod
    def block(self, lm: Readable, reading: Reading) -> AbstractContextManager[object]:
        """The `with` block in which it is changed."""


@dataclass(frozen=True)
class Silence(Experiment):
    """These heads, as (layer, head), say nothing, or ("mean") what they say on average, over the reference texts or,
    without any, over this one. kind: which attention, in an encoder-decoder."""

    heads: Heads
    how: Literal["zero", "mean"] = "zero"
    references: Sequence[str | tuple[str, str]] = ()
    kind: Kind | None = None

    def __post_init__(self) -> None:
        _check(self.heads)
        check_how(self.how, self.references)

    @property
    def words(self) -> str:
        texts = counted(len(self.references), "text") if self.references else "this text"
        return f"silenced: {named(self.heads)} ({'zero' if self.how == 'zero' else f'their mean over {texts}'})"

    def block(self, lm: Readable, reading: Reading) -> AbstractContextManager[object]:
        return silence(lm.model, self.heads, how=means(lm, reading, self.how, self.references), kind=self.kind)


@dataclass(frozen=True)
class Cut(Experiment):
    """Word `query` does not read word `key`, in these heads, or in all.

    renormalise: whether the other words share the weight, or keep what they had. Raises InputError where none of these
    heads could read that way round.
    """

    query: Word
    key: Word
    heads: Heads | None = None
    kind: Kind | None = None
    renormalise: bool = True

    def __post_init__(self) -> None:
        _check(self.heads)

    @property
    def words(self) -> str:
        rest = "" if self.renormalise else ", its weight withheld"
        return f"cut: {self.query!r} does not read {self.key!r} in {named(self.heads)}{rest}"

    @contextmanager
    def block(self, lm: Readable, reading: Reading) -> Iterator[None]:
        both = reading.begun is not None
        queries = reading.find(self.query, target=both and self.kind != "encoder")
        keys = reading.find(self.key, target=both and self.kind == "decoder")
        with cut(lm.model, queries, keys, self.heads, kind=self.kind, renormalise=self.renormalise) as edges:
            yield
        if edges.readable is False:
            who = "no head can" if self.heads is None else f"{named(self.heads)} cannot"
            raise InputError(
                f"{who} read {self.key!r} from {self.query!r}, so there is nothing to cut: a "
                "decoder reads only what came before, and a window only what is near; choose another word."
            )


@dataclass(frozen=True)
class Delete(Experiment):
    """No token reads this word, in these heads, or in all; it stays in its place, and the others share its weight."""

    word: Word
    heads: Heads | None = None
    kind: Kind | None = None

    def __post_init__(self) -> None:
        _check(self.heads)

    @property
    def words(self) -> str:
        return f"deleted: nothing reads {self.word!r} in {named(self.heads)}"

    def block(self, lm: Readable, reading: Reading) -> AbstractContextManager[object]:
        keys = reading.find(self.word, target=reading.begun is not None and self.kind == "decoder")
        return cut(lm.model, None, keys, self.heads, kind=self.kind)


@dataclass(frozen=True)
class Rescore(Experiment):
    """Scores are formed another way, in these heads, or in all: AtTemperature(2.0), WithoutMask(), WithoutScale() …"""

    change: Rescoring
    heads: Heads | None = None
    kind: Kind | None = None

    def __post_init__(self) -> None:
        check_rescoring(self.change)
        _check(self.heads)

    @property
    def words(self) -> str:
        return f"{self.change.words} in {named(self.heads)}"

    def block(self, lm: Readable, reading: Reading) -> AbstractContextManager[object]:
        return rescore(lm.model, self.change, self.heads, kind=self.kind)


@dataclass(frozen=True)
class Patch(Experiment):
    """These heads say what they say in another text. at: pairs (here, there) of words, or None for texts of one length.

    A pair's words must have as many tokens as each other. source_language, target_language: the other text's, where
    they are not those of the text that is read.
    """

    text: str
    heads: Heads
    target: str | None = None
    at: Sequence[tuple[Word, Word]] | None = None
    kind: Kind | None = None
    source_language: str | None = None
    target_language: str | None = None

    def __post_init__(self) -> None:
        _check(self.heads)
        for pair in self.at if self.at is not None else ():
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InputError(f"at holds pairs of words, (here, there), and {pair!r} is none.")

    @property
    def words(self) -> str:
        where = "" if self.at is None else f" at {', '.join(str(here) for here, _ in self.at)}"
        return f"patched: {named(self.heads)} as in {self.text!r}{where}"

    def block(self, lm: Readable, reading: Reading) -> AbstractContextManager[object]:
        other = read(
            lm,
            self.text,
            self.target,
            source_language=self.source_language or reading.source_language,
            target_language=self.target_language or reading.target_language,
            what="text to patch from",
        )
        given = Outputs.of(lm.model, partial(other.run, lm.model))
        pairs: list[tuple[int, int]] | None = None if self.at is None else []
        behind = reading.begun is not None and self.kind != "encoder"
        for here, there in self.at or ():
            to, from_ = reading.find(here, target=behind), other.find(there, target=behind)
            if len(to) != len(from_):
                raise InputError(
                    f"{here!r} is {counted(len(to), 'token')} and {there!r} is {len(from_)}; "
                    "give words of as many tokens."
                )
            assert pairs is not None
            pairs += zip(to, from_, strict=True)
        return patch(lm.model, self.heads, given, at=pairs, kind=self.kind)


def _check(heads: Heads | None) -> None:
    """Raise InputError for what is no list of heads, or an empty one; None is all of them."""
    if heads is not None and (isinstance(heads, str) or not isinstance(heads, Sequence)):
        raise InputError(f"{heads!r} is no list of heads; give pairs of layer and head, such as [(5, 11)].")
    if heads is not None:
        check_heads(heads)


def named(heads: Heads | None) -> str:
    """Heads as people write them: 5.11, 3.1."""
    if heads is None:
        return "every head"
    shown = [f"{layer}.{head}" for layer, head in heads[:6]] + (["…"] if len(heads) > 6 else [])
    return f"head{'s' if len(heads) > 1 else ''} {', '.join(shown)}"


def check_how(how: str, references: Sequence[str | tuple[str, str]]) -> None:
    """Raise InputError for a word that is no way to silence, and for references that would not be read."""
    if how not in ("zero", "mean"):
        raise InputError(f"how={how!r} is not a choice; choose 'zero' or 'mean'.")
    if isinstance(references, str):
        raise InputError("reference texts come as a list; write [text].")
    if references and how != "mean":
        raise InputError("reference texts are for how='mean'; leave them out.")
    for each in references:
        if not isinstance(each, str) and not (isinstance(each, tuple) and len(each) == 2):
            raise InputError(f"{each!r} is no reference text; give texts, or pairs of a source and a target.")


def means(
    lm: Readable, reading: Reading, how: Literal["zero", "mean"], references: Sequence[str | tuple[str, str]]
) -> How:
    """What a silenced head says: nothing, or its mean over the references (pairs where there are two) or the text."""
    check_how(how, references)
    if how == "zero":
        return "zero"
    pairs = [(each, None) if isinstance(each, str) else each for each in references]
    source, target = reading.source_language, reading.target_language
    texts = [read(lm, *pair, source_language=source, target_language=target, what="reference text") for pair in pairs]
    runs: list[Callable[[], object]] = [partial(each.run, lm.model) for each in texts or [reading]]
    return Means.over(lm.model, runs)
