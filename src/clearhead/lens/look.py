"""look. Run a model over a text and keep what every head reads, with the words beside it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from clearhead.errors import InputError, OutsideError
from clearhead.lens.attention_map import AttentionMap
from clearhead.lens.seen import Kind, Link, Seen
from clearhead.lens.watch import watch
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder, Output, check_fits


@runtime_checkable
class Encoded(Protocol):
    """A text as a tokenizer gives it (`clearhead.text.Encoding`)."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def offsets(self) -> list[tuple[int, int]]: ...
    @property
    def type_ids(self) -> list[int]: ...
    @property
    def labels(self) -> list[str]: ...


@runtime_checkable
class Tokenizing(Protocol):
    """What `look` needs of a tokenizer (`clearhead.text.Tokenizer`)."""

    def encode(self, text: str, /) -> Encoded: ...


@runtime_checkable
class Readable(Protocol):
    """What `look` needs of a loaded model (`clearhead.load`)."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def tokenizer(self) -> Tokenizing: ...


class Look:
    """What every head reads in one text. `tokens` are the words, `map(layer, head)` the weights, `ask` the links.

    In an encoder-decoder `tokens` are the source's and `target_tokens` the target's. `output` is the model's own.
    """

    def __init__(
        self, seen: Seen, text: str, encoding: Encoded, output: Output, target: tuple[str, Encoded] | None = None
    ) -> None:
        self.seen, self.output = seen, output
        self.text, self.tokens, self.offsets = text, list(encoding.labels), list(encoding.offsets)
        self.target = target[0] if target is not None else None
        self.target_tokens = list(target[1].labels) if target is not None else []
        self.target_offsets = list(target[1].offsets) if target is not None else []

    def __repr__(self) -> str:
        shape = ", ".join(f"{kind}: {self.n_layers(kind)} layers × {self.n_heads(kind)} heads" for kind in self.kinds)
        return f"<Look at {len(self.tokens)} tokens; {shape}>"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of attention there are."""
        return self.seen.kinds

    def n_layers(self, kind: Kind | None = None) -> int:
        """How many layers of this kind there are."""
        return self.seen.n_layers(kind)

    def n_heads(self, kind: Kind | None = None, layer: int = 0) -> int:
        """How many heads a layer has."""
        return self.seen.n_heads(kind, layer)

    def map(self, layer: int, head: int, kind: Kind | None = None) -> AttentionMap:
        """One head's weights: rows are the tokens that read, columns the tokens that are read."""
        return self.seen.map(layer, head, kind)

    def sides(self, kind: Kind | None = None) -> tuple[list[str], list[str]]:
        """The tokens of a map's rows and of its columns."""
        kind = kind if kind is not None else self.kinds[0]
        if self.target is None or kind == "encoder":
            return self.tokens, self.tokens
        return self.target_tokens, self.tokens if kind == "cross" else self.target_tokens

    def find(self, word: str | int, *, target: bool = False) -> list[int]:
        """The tokens of a word: its first occurrence in the text, its n-th as `word#n`, or a token by its index.

        Raises OutsideError, naming the tokens there are, where the text has no such word.
        """
        text, offsets, tokens = (
            (self.target or "", self.target_offsets, self.target_tokens)
            if target
            else (self.text, self.offsets, self.tokens)
        )
        if isinstance(word, int):
            if not -len(tokens) <= word < len(tokens):
                raise OutsideError(f"token {word} is outside the text; choose 0…{len(tokens) - 1}.")
            return [word % len(tokens)]
        wanted, _, count = word.partition("#")
        if not count.isdecimal() or not wanted:
            wanted, count = word, "1"
        spans = _occurrences(text, wanted)
        if len(spans) < int(count) or int(count) < 1:
            if word in tokens:  # a special token, or a piece as it is shown
                return [tokens.index(word)]
            shown = " ".join(tokens[:40]) + (" …" if len(tokens) > 40 else "")
            times = f"only {len(spans)} times" if spans else "not"
            raise OutsideError(f"{wanted!r} is {times} in the text; its tokens are: {shown}")
        start, end = spans[int(count) - 1]
        return [i for i, (a, b) in enumerate(offsets) if a < end and b > start and b > a]

    def ask(self, query: str | int, key: str | int, kind: Kind | None = None) -> list[Link]:
        """Every head of every layer, ranked by the weight that word `query` gives to word `key`.

        Raises InputError where no head could read that way round, as a decoder cannot read what comes later.
        """
        kind = kind if kind is not None else self.kinds[0] if len(self.kinds) == 1 else None
        rows = self.find(query, target=self.target is not None and kind != "encoder")
        cols = self.find(key, target=self.target is not None and kind == "decoder")
        links = self.seen.links(rows, cols, kind)
        if all(link.weight == 0.0 for link in links):
            raise InputError(
                f"no head can read {key!r} from {query!r}: a decoder reads only what came before; "
                f"ask for {key!r} reading {query!r} instead."
            )
        return links

    def release(self) -> None:
        """Give the tensors back."""
        self.seen.release()


def _occurrences(text: str, wanted: str) -> list[tuple[int, int]]:
    """Where `wanted` stands in `text`: as whole words if it does anywhere, else as any part; case is ignored last."""
    for haystack, needle in ((text, wanted), (text.lower(), wanted.lower())):
        if len(haystack) != len(text):
            continue
        found, at = [], haystack.find(needle)
        while at >= 0 and needle:
            found.append((at, at + len(needle)))
            at = haystack.find(needle, at + 1)
        whole = [
            (a, b)
            for a, b in found
            if not (a > 0 and text[a - 1].isalnum() and text[a].isalnum())
            and not (b < len(text) and text[b].isalnum() and text[b - 1].isalnum())
        ]
        if whole or found:
            return whole or found
    return []


@torch.inference_mode()
def look(lm: Readable, text: str, target: str | None = None) -> Look:
    """Run the model over the text, once, and keep what every head reads.

    lm: what `clearhead.load` gives. target: the decoder's text, for an encoder-decoder; it begins with the start token.
    Raises InputError for an empty text, ContextError for one longer than the model's positions.
    """
    model = lm.model
    encoding = _encoded(lm.tokenizer, text, "text")
    if not isinstance(model, Encoder | Decoder | EncoderDecoder):
        raise InputError(f"{type(model).__name__} has no attention to look at.")
    ids = torch.tensor([encoding.ids], device=model.device)
    check_fits(model.config, ids.shape[1])
    if isinstance(model, EncoderDecoder):
        return _look_both(model, lm.tokenizer, text, encoding, ids, target)
    if target is not None:
        raise InputError("a target is for encoder-decoders, and this model is not one; leave it out.")
    types = torch.tensor([encoding.type_ids], device=model.device) if model.config.embedding.token_types else None
    with _alone(model), watch(model) as seen:
        output = model(ids, token_type_ids=types)
    return Look(seen, text, encoding, output)


_locks: weakref.WeakKeyDictionary[nn.Module, threading.Lock] = weakref.WeakKeyDictionary()


@contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """One look at a time, and no dropout: a model in training reads the same text the same way."""
    with _locks.setdefault(model, threading.Lock()), without_dropout(model):
        yield


def _look_both(
    model: EncoderDecoder, tokenizer: Tokenizing, text: str, encoding: Encoded, ids: torch.Tensor, target: str | None
) -> Look:
    if target is None:
        raise InputError("an encoder-decoder reads two texts; give the target too: look(lm, source, target).")
    written = _encoded(tokenizer, target, "target")
    start = model.config.tokens.decoder_start
    if start is None:
        raise InputError("this model names no decoder start token; its config lacks decoder_start_token_id.")
    begun = _Begun(written, start)
    check_fits(model.config, len(begun.ids))
    with _alone(model), watch(model) as seen:
        output = model(ids, torch.tensor([begun.ids], device=model.device))
    return Look(seen, text, encoding, output, (target, begun))


class _Begun:
    """A target as the decoder reads it: the start token, then all but the last token."""

    def __init__(self, written: Encoded, start: int) -> None:
        self.ids = [start, *written.ids[:-1]]
        self.offsets = [(0, 0), *written.offsets[:-1]]
        self.type_ids = [0, *written.type_ids[:-1]]
        self.labels = ["⟨start⟩", *written.labels[:-1]]


def _encoded(tokenizer: Tokenizing | None, text: str, what: str) -> Encoded:
    if not isinstance(text, str):
        raise InputError(f"the {what} is a {type(text).__name__}; give a str.")
    if not text.strip():
        raise InputError(f"the {what} is empty; give at least one word.")
    if tokenizer is None:
        raise InputError("this model was loaded without a tokenizer; use `watch` and give it ids.")
    encoding = tokenizer.encode(text)
    if not encoding.ids:
        raise InputError(f"the {what} has no tokens in this model's vocabulary; give another.")
    return encoding
