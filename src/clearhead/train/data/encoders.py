"""Encoders: from a row to ids, once. Everything here is decided by the row and the tokenizer alone, so it is cached.

What is drawn anew at each step (which tokens are masked, in what order rows come) is no part of it. No torch here: the
processes that tokenise start quickly and stay small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from clearhead.errors import TrainingError
from clearhead.text import Tokenizer
from clearhead.train.data.chat import Chat
from clearhead.train.data.encoding import (
    IGNORED,
    Encoder,
    Fields,
    Kind,
    check_labels,
    check_longest,
    cut_to,
    fitting,
    identity,
    number_of,
    one_or_two,
    quick_ids,
    text_of,
    value_of,
)
from clearhead.train.data.rows import Row

__all__ = [
    "IGNORED",
    "Chat",
    "Encoder",
    "Fields",
    "Kind",
    "Labelled",
    "Scored",
    "Tagged",
    "Text",
    "Translation",
    "identity",
    "text_of",
    "value_of",
]


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text to learn language from.

    special: put the tokenizer's own tokens around it (`[CLS] … [SEP]`), as encoders are pre-trained. Without them,
    begin, end: put the bos token before, the eos token after each document, where the tokenizer has one. words: also
    note where words begin, for masking whole words. longest: cut after so many tokens.
    """

    column: str = "text"
    special: bool = False
    begin: bool = False
    end: bool = True
    words: bool = False
    longest: int | None = None

    def __post_init__(self) -> None:
        check_longest(self.longest)

    @property
    def fields(self) -> Mapping[str, Kind]:
        """ids; and starts: 1 at the first token of each word and at special tokens."""
        return {"ids": "ids", **({"starts": "flags"} if self.words else {})}

    def texts(self, row: Row) -> Iterator[str]:
        """The column's."""
        yield text_of(row, self.column)

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The text's ids, and those that are put around it."""
        text = text_of(row, self.column)
        starts: list[int] = []
        if self.words or (self.special and self.longest is not None):
            encoding = tokenizer.encode(text, special=self.special)
            kept = fitting(encoding, self.longest, notes) if self.special else range(len(encoding))
            ids = [encoding.ids[at] for at in kept]
            words = [encoding.words[at] for at in kept]
            starts = [int(word is None or word != before) for before, word in zip([None, *words], words, strict=False)]
        else:
            ids = tokenizer.encode_ids(text, special=self.special)
        bare = not self.special
        before = [tokenizer.bos_id] if bare and self.begin and first and tokenizer.bos_id is not None else []
        after = [tokenizer.eos_id] if bare and self.end and last and tokenizer.eos_id is not None else []
        room = None if self.longest is None else self.longest - len(before) - len(after)
        if room is not None and len(ids) > room:
            notes[cut_to(self.longest)] += 1
            ids, starts = ids[:room], starts[:room]
        found: dict[str, Sequence[int]] = {"ids": [*before, *ids, *after]}
        if self.words:
            found["starts"] = [*(1 for _ in before), *starts, *(1 for _ in after)]
        return found


@dataclass(frozen=True, kw_only=True)
class Translation:
    """A source to read and a target to write, each with the tokenizer's special tokens; the target ends in eos.

    languages: for multilingual translators, by their codes. longest: cut each side after so many tokens.
    nested: the column that holds both, by language code, as the hub writes it (`{"translation": {"de": …, "en": …}}`).
    """

    source: str = "source"
    target: str = "target"
    source_language: str | None = None
    target_language: str | None = None
    longest: int | None = None
    nested: str | None = None

    def __post_init__(self) -> None:
        check_longest(self.longest)

    @property
    def fields(self) -> Mapping[str, Kind]:
        """ids, of the source; and target."""
        return {"ids": "ids", "target": "ids"}

    def texts(self, row: Row) -> Iterator[str]:
        """Both sides, the source first."""
        inside = self._sides(row)
        yield text_of(inside, self.source)
        yield text_of(inside, self.target)

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """Both sides."""
        row = self._sides(row)
        eos = tokenizer.target.eos_id if tokenizer.target.eos_id is not None else tokenizer.eos_id
        said = text_of(row, self.target)
        written = quick_ids(tokenizer.target, said, self.longest) if self._plain(tokenizer) else None
        if written is None:
            target = tokenizer.encode_target(said, self.target_language)
            written = [target.ids[at] for at in fitting(target, self.longest, notes)]
        if eos is not None and (not written or written[-1] != eos):
            written = [*(written[: self.longest - 1] if self.longest is not None else written), eos]
        heard = text_of(row, self.source)
        ids = quick_ids(tokenizer, heard, self.longest) if self._plain(tokenizer) else None
        if ids is None:
            source = tokenizer.encode(heard, source_language=self.source_language, target_language=self.target_language)
            ids = [source.ids[at] for at in fitting(source, self.longest, notes)]
        return {"ids": ids, "target": written}

    def _sides(self, row: Row) -> Row:
        if self.nested is None:
            return row
        inside = value_of(row, self.nested)
        if not isinstance(inside, Mapping):
            raise TrainingError(f"column {self.nested!r} is a {type(inside).__name__}, not one text a language.")
        return inside

    def _plain(self, tokenizer: Tokenizer) -> bool:
        """Whether no language has a say in the ids."""
        return not tokenizer.languages and self.source_language is None and self.target_language is None


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text, or a pair of texts, and its label.

    labels: their names, in the order of the model's outputs. A value is one of them, or else its number in this order.
    several: the label is a list, and any number of them may hold (or a text that separates them by `several`).
    """

    labels: tuple[str, ...]
    text: str = "text"
    pair: str | None = None
    label: str = "label"
    several: str | None = None
    longest: int | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels)
        check_longest(self.longest)

    @property
    def fields(self) -> Mapping[str, Kind]:
        """ids; types, 1 for the tokens of a second text; label: one number, or one float a label."""
        types: Mapping[str, Kind] = {"types": "flags"} if self.pair is not None else {}
        return {"ids": "ids", **types, "label": "numbers" if self.several is None else "floats"}

    def texts(self, row: Row) -> Iterator[str]:
        """The text, and the second one of a pair."""
        yield from (text_of(row, column) for column in (self.text, self.pair) if column is not None)

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The ids, cut at the end of the longer text where there are too many, and the label."""
        ids, types = one_or_two(row, self.text, self.pair, self.longest, tokenizer, notes)
        value = value_of(row, self.label)
        label: Sequence[int] | Sequence[float]
        if self.several is None:
            label = [number_of(value, self.labels, self.label)]
        else:
            names = value if isinstance(value, list | tuple) else [one for one in str(value).split(self.several) if one]
            on = {number_of(name, self.labels, self.label) for name in names}
            label = [float(at in on) for at in range(len(self.labels))]
        return {"ids": ids, **types, "label": label}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A text, or a pair of texts, and a number to predict."""

    text: str = "text"
    pair: str | None = None
    score: str = "score"
    longest: int | None = None

    def __post_init__(self) -> None:
        check_longest(self.longest)

    @property
    def fields(self) -> Mapping[str, Kind]:
        """ids; types; score: one float."""
        types: Mapping[str, Kind] = {"types": "flags"} if self.pair is not None else {}
        return {"ids": "ids", **types, "score": "floats"}

    def texts(self, row: Row) -> Iterator[str]:
        """The text, and the second one of a pair."""
        yield from (text_of(row, column) for column in (self.text, self.pair) if column is not None)

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The ids and the number."""
        ids, types = one_or_two(row, self.text, self.pair, self.longest, tokenizer, notes)
        value = value_of(row, self.score)
        try:
            score = float(value)
        except (TypeError, ValueError):
            raise TrainingError(f"column {self.score!r} has {value!r}, which is no number.") from None
        return {"ids": ids, **types, "score": [score]}


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """Words and a tag for each. The tag is learned at the word's first piece; its other pieces have none.

    The words are joined by spaces and tokenised as the text that they are, so a model meets in training what it meets
    in use; a token belongs to the word in which its characters begin.
    """

    labels: tuple[str, ...]
    tokens: str = "tokens"
    tags: str = "tags"
    longest: int | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels)
        check_longest(self.longest)

    @property
    def fields(self) -> Mapping[str, Kind]:
        """ids; and tags, −100 where there is none."""
        return {"ids": "ids", "tags": "numbers"}

    def texts(self, row: Row) -> Iterator[str]:
        """The words, as the text that they are."""
        yield " ".join(map(str, value_of(row, self.tokens)))

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The ids of the sentence, and a tag at each word's first token."""
        words, tags = value_of(row, self.tokens), value_of(row, self.tags)
        if not isinstance(words, list | tuple) or not isinstance(tags, list | tuple) or len(words) != len(tags):
            raise TrainingError(f"columns {self.tokens!r} and {self.tags!r} should be lists of one length.")
        numbers = [number_of(tag, self.labels, self.tags) for tag in tags]
        starts = [0]
        for word in words:
            starts.append(starts[-1] + len(word) + 1)
        text = " ".join(words)
        encoding = tokenizer.encode(text)
        found = [IGNORED] * len(encoding)
        word = -1
        for at, (begin, end) in enumerate(encoding.offsets):
            if encoding.sequences[at] is None or end <= begin:
                continue
            begin += len(text[begin:end]) - len(text[begin:end].lstrip())  # the space before is no part of the word
            if begin >= end or begin < (starts[word + 1] if word + 1 < len(words) else len(text)):
                continue
            while word + 1 < len(words) and starts[word + 1] <= begin:
                word += 1
            found[at] = numbers[word]
        lost = len(words) - sum(tag != IGNORED for tag in found)
        if lost:
            notes["words without a token, whose tags are not learned"] += lost
        kept = fitting(encoding, self.longest, notes)
        return {"ids": [encoding.ids[at] for at in kept], "tags": [found[at] for at in kept]}
