"""Encoders: from a row to ids, once. Everything here is decided by the row and the tokenizer alone, so it is cached.

What is drawn anew at each step (which tokens are masked, in what order rows come) is no part of it. No torch here: the
processes that tokenise start quickly and stay small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, Literal, Protocol, runtime_checkable

from clearhead.errors import ConfigError, TrainingError
from clearhead.text import Encoding, Tokenizer
from clearhead.train.data.chat import answers
from clearhead.train.data.rows import Row

Kind = Literal["ids", "numbers", "flags", "floats"]
"""What a field holds: ids below the vocabulary's size, whole numbers (−100 for none), 0 or 1, or real numbers."""
Fields = Mapping[str, Sequence[int] | Sequence[float]]
"""What a row becomes: names and numbers."""

IGNORED = -100
"""The label of a token from which nothing is learned; as in `train.batch`, which needs torch."""


@runtime_checkable
class Encoder(Protocol):
    """A choice of columns, and what becomes of them."""

    @property
    def fields(self) -> Mapping[str, Kind]:
        """The names of what `encode` gives, the ids that are counted first."""
        ...

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The row in numbers. notes: is told what was cut. first, last: whether the row begins and ends a document.

        Raises TrainingError for a column that is missing, and for values that make no sense.
        """
        ...


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

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """Both sides."""
        if self.nested is not None:
            inside = value_of(row, self.nested)
            if not isinstance(inside, Mapping):
                raise TrainingError(f"column {self.nested!r} is a {type(inside).__name__}, not one text a language.")
            row = inside
        eos = tokenizer.target.eos_id if tokenizer.target.eos_id is not None else tokenizer.eos_id
        said = text_of(row, self.target)
        written = _quick(tokenizer.target, said, self.longest) if self._plain(tokenizer) else None
        if written is None:
            target = tokenizer.encode_target(said, self.target_language)
            written = [target.ids[at] for at in fitting(target, self.longest, notes)]
        if eos is not None and (not written or written[-1] != eos):
            written = [*(written[: self.longest - 1] if self.longest is not None else written), eos]
        heard = text_of(row, self.source)
        ids = _quick(tokenizer, heard, self.longest) if self._plain(tokenizer) else None
        if ids is None:
            source = tokenizer.encode(heard, source_language=self.source_language, target_language=self.target_language)
            ids = [source.ids[at] for at in fitting(source, self.longest, notes)]
        return {"ids": ids, "target": written}

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

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The ids, cut at the end of the longer text where there are too many, and the label."""
        ids, types = _one_or_two(row, self.text, self.pair, self.longest, tokenizer, notes)
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

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The ids and the number."""
        ids, types = _one_or_two(row, self.text, self.pair, self.longest, tokenizer, notes)
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


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A conversation, of which the assistant's answers are learned; see `chat.answers` for how they are found."""

    messages: str = "messages"
    longest: int | None = None

    def __post_init__(self) -> None:
        check_longest(self.longest)

    @property
    def fields(self) -> Mapping[str, Kind]:
        """ids; and learned: 1 at the tokens of an answer."""
        return {"ids": "ids", "learned": "flags"}

    def encode(self, row: Row, tokenizer: Tokenizer, notes: Counter[str], *, first: bool, last: bool) -> Fields:
        """The whole conversation, cut at its end where it is too long."""
        text, spans = answers(tokenizer, value_of(row, self.messages))
        encoding = tokenizer.encode(text, special=False)
        learned = [0] * len(encoding)
        span = 0
        for at, (begin, end) in enumerate(encoding.offsets):
            while span < len(spans) and begin >= spans[span][1]:
                span += 1
            learned[at] = int(span < len(spans) and begin >= spans[span][0] and end > begin)
        ids = encoding.ids
        if self.longest is not None and len(ids) > self.longest:
            notes[cut_to(self.longest)] += 1
            ids, learned = ids[: self.longest], learned[: self.longest]
        if not any(learned):
            notes["conversations without an answer to learn from"] += 1
        return {"ids": ids, "learned": learned}


def identity(encoder: Any) -> dict[str, Any]:
    """An encoder as plain data."""
    return {"kind": type(encoder).__name__, **asdict(encoder)}


# ── columns, labels, lengths ─────────────────────────────────────────────────────────────────────────────────────────


def value_of(row: Row, column: str) -> Any:
    """The value of a column. Raises TrainingError naming the columns that there are."""
    if column in row:
        return row[column]
    near = get_close_matches(column, row, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, row)) or 'none'}."
    raise TrainingError(f"there is no column {column!r}; {hint}")


def text_of(row: Row, column: str) -> str:
    """The text in a column."""
    value = value_of(row, column)
    if not isinstance(value, str):
        raise TrainingError(f"column {column!r} has {str(value)[:60]}, which is no text.")
    return value


def number_of(value: Any, labels: tuple[str, ...], column: str) -> int:
    """The number of a label: by its name, or else as a number. Raises TrainingError for one outside the set."""
    if str(value) in labels:
        return labels.index(str(value))
    if not isinstance(value, bool) and isinstance(value, int | str):
        text = str(value)
        if text.isdecimal() and int(text) < len(labels):
            return int(text)
    shown = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
    near = get_close_matches(str(value), labels, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise TrainingError(f"the label {str(value)[:60]!r} in column {column!r} is none of {shown}{hint}")


def _one_or_two(
    row: Row, first: str, second: str | None, longest: int | None, tokenizer: Tokenizer, notes: Counter[str]
) -> tuple[Sequence[int], Mapping[str, Sequence[int]]]:
    """The ids of a text; or of a pair, with the types of its tokens."""
    text = text_of(row, first)
    if second is None:
        ids = _quick(tokenizer, text, longest)
        if ids is not None:
            return ids, {}
    encoding = tokenizer.encode(text, text_of(row, second) if second is not None else None)
    kept = fitting(encoding, longest, notes)
    types = {"types": [encoding.type_ids[at] for at in kept]} if second is not None else {}
    return [encoding.ids[at] for at in kept], types


def _quick(tokenizer: Tokenizer, text: str, longest: int | None) -> list[int] | None:
    """The ids of a text that need not be cut, without all else that an encoding has; None where it must be."""
    ids = tokenizer.encode_ids(text)
    return ids if longest is None or len(ids) <= longest else None


def fitting(encoding: Encoding, longest: int | None, notes: Counter[str]) -> Sequence[int]:
    """Which tokens to keep so that there are at most `longest`: all special ones; the longer text loses its end."""
    over = 0 if longest is None else len(encoding) - longest
    if over <= 0:
        return range(len(encoding))
    notes[cut_to(longest)] += 1
    sides = [[at for at, side in enumerate(encoding.sequences) if side == number] for number in (0, 1)]
    while over > 0 and (sides[0] or sides[1]):
        longer, other = sorted(sides, key=len, reverse=True)
        many = min(over, max(len(longer) - len(other), 1))
        del longer[len(longer) - many :]
        over -= many
    kept = {*sides[0], *sides[1]}
    return [at for at, side in enumerate(encoding.sequences) if side is None or at in kept]


def cut_to(longest: int | None) -> str:
    """How cut rows are counted."""
    return f"texts cut to {longest} tokens"


def check_longest(longest: int | None) -> None:
    """Raise ConfigError for a length that holds nothing."""
    if longest is not None and longest < 2:
        raise ConfigError(f"longest={longest} should be a number of tokens, 2 or more.")


def check_labels(labels: tuple[str, ...]) -> None:
    """Raise ConfigError for no labels, or one that is named twice."""
    if not labels:
        raise ConfigError("labels is empty; name at least one, in the order of the model's outputs.")
    if len(set(labels)) != len(labels):
        raise ConfigError(f"labels={labels!r} names one twice.")
