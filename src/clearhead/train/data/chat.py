"""Conversations: which characters of one the assistant wrote. Only these answers are learned.

A template is a program, so where it puts an answer must be found out from what it writes. In two ways:

1.  The template says so: `{% generation %} … {% endgeneration %}` stands around the answer (Hugging Face's convention).
    It is rendered once more with a mark at both ends; without the marks the text must be the same.
2.  The conversation is rendered as it grows. Up to the question, with the words that open an answer, it is what a model
    is given; up to the answer, it is what the model should have made of it. What lies between is the answer, with the
    token that ends it; blanks that follow that token are not learned, since nobody will ask for them.

The second way needs each shorter text to be the beginning of the longer one. A template that rewrites what came before
(some drop the thoughts of earlier turns) is refused, and says where it differs: mark the answers in it the first way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearhead.errors import TokenizerError, TrainingError
from clearhead.text import Tokenizer, render
from clearhead.train.data.encoding import Fields, Kind, check_longest, cut_to, value_of
from clearhead.train.data.rows import Row

Span = tuple[int, int]
ASSISTANT = "assistant"

_BEGIN = re.compile(r"(?m)(^[ \t]*)?\{%(-?)\s*generation\s*(-?)%\}\n?")
_END = re.compile(r"(?m)(^[ \t]*)?\{%(-?)\s*endgeneration\s*(-?)%\}\n?")


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A conversation, of which the assistant's answers are learned; see `answers` for how they are found."""

    messages: str = "messages"
    longest: int | None = None

    def __post_init__(self) -> None:
        check_longest(self.longest)

    @property
    def fields(self) -> Mapping[str, Kind]:
        """ids; and learned: 1 at the tokens of an answer."""
        return {"ids": "ids", "learned": "flags"}

    def texts(self, row: Row) -> Iterator[str]:
        """What everybody says."""
        messages = value_of(row, self.messages)
        yield from (str(message.get("content", "")) for message in messages if isinstance(message, Mapping))

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


def answers(tokenizer: Tokenizer, messages: Any) -> tuple[str, list[Span]]:
    """The conversation as one text, and where in it the assistant's answers begin and end.

    Raises TrainingError for what is no conversation, and where the answers cannot be found.
    """
    if not isinstance(messages, list | tuple) or not messages or not all(isinstance(each, dict) for each in messages):
        raise TrainingError(
            f"{str(messages)[:60]!r} is no conversation; it should be a list of messages with a role and content."
        )
    for number, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise TrainingError(f"message {number} has no 'role', such as 'user' or 'assistant'.")
    if tokenizer.chat_template is None:
        raise TrainingError("this tokenizer has no chat template, so a conversation is no text; give it one.")
    try:
        text = tokenizer.chat(messages, add_generation_prompt=False)
        if _BEGIN.search(tokenizer.chat_template):
            return text, _marked(tokenizer, messages, text)
        return text, _grown(tokenizer, messages, text)
    except TokenizerError as error:
        raise TrainingError(str(error)) from None


def _marked(tokenizer: Tokenizer, messages: Sequence[Any], text: str) -> list[Span]:
    """The spans between the marks that the template's own blocks are given."""
    private = (chr(code) for code in range(0xE000, 0xF8FF))
    begin, end = (mark for mark, _ in zip((one for one in private if one not in text), range(2), strict=False))
    template = _BEGIN.sub(lambda at: _with_mark(at, begin, after=True), str(tokenizer.chat_template))
    template = _END.sub(lambda at: _with_mark(at, end, after=False), template)
    tokens: dict[str, Any] = {f"{role}_token": token for role, token in tokenizer.special_tokens.items()}
    marked = render(template, messages, **tokens)
    if marked.replace(begin, "").replace(end, "") != text:
        raise TrainingError("the template's text depends on its {% generation %} blocks; the answers cannot be found.")
    spans: list[Span] = []
    plain, at = 0, None
    for letter in marked:
        if letter == begin:
            at = plain
        elif letter == end:
            if at is None:
                raise TrainingError("the template ends a {% generation %} block that it did not begin.")
            spans.append((at, plain))
            at = None
        else:
            plain += 1
    return spans


def _with_mark(block: re.Match[str], mark: str, *, after: bool) -> str:
    """The block's tag with a mark inside of it that takes or leaves blanks as the tag itself did."""
    _, left, right = block.groups()
    name = "generation" if after else "endgeneration"
    dash_left, dash_right = left or "", right or ""
    if after:
        return f"{{%{dash_left} {name} %}}{{{{ '{mark}' {dash_right}}}}}"
    return f"{{{{{dash_left} '{mark}' }}}}{{% {name} {dash_right}%}}" + ("" if dash_right else "\n")


def _grown(tokenizer: Tokenizer, messages: Sequence[Any], text: str) -> list[Span]:
    """The spans by which the text grows at each answer."""
    specials = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values() if token.special]
    spans: list[Span] = []
    for number, message in enumerate(messages):
        if message["role"] != ASSISTANT or not number:  # nothing asks for a greeting
            continue
        last = number + 1 == len(messages)
        question = tokenizer.chat(messages[:number], add_generation_prompt=True)
        answered = text if last else tokenizer.chat(messages[: number + 1], add_generation_prompt=False)
        for shorter, longer, what in ((question, answered, "its answer"), (answered, text, "what follows")):
            if not longer.startswith(shorter):
                at = next((n for n, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(longer))
                raise TrainingError(
                    f"the chat template rewrites the text before message {number} once {what} is there "
                    f"({shorter[at : at + 20]!r} becomes {longer[at : at + 20]!r}), so answers cannot be told apart; "
                    "put {% generation %} … {% endgeneration %} around the answer in the template."
                )
        begin, end = len(question), len(answered)
        bare = answered.rstrip()
        if len(bare) > begin and any(bare.endswith(token) for token in specials):
            end = len(bare)
        if end > begin:
            spans.append((begin, end))
    return spans
