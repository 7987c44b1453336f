"""Perplexity of a text that is longer than a model reads: strided windows over each document.

A window is as many tokens as the model reads, and begins `stride` after the one before. It scores only tokens that no
window scored before, so each token but a document's first is scored once, with at least `context − stride` tokens
before it wherever the document has them. A small stride gives more context, and takes longer.

    loss = − Σ log p(token | the window's tokens before it) / tokens scored
    bits per byte = Σ / (ln 2 · bytes of the tokens scored)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from clearhead.errors import InputError
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import Decoder
from clearhead.text import Tokenizer
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.data.encoders import text_of
from clearhead.train.data.rows import Found
from clearhead.train.evaluate import Score, bits_per_byte, perplexity
from clearhead.train.loss import total_loss

TOGETHER = 256
"""So many windows wait to be put beside others of their length."""
LOGITS = 1 << 26
"""So many logits are held at once: a batch has fewer windows where the vocabulary is large."""


class Window(NamedTuple):
    """Ids that are read, of which those from place `first` on are scored."""

    ids: list[int]
    first: int


def windows(ids: list[int], context: int, stride: int) -> Iterator[Window]:
    """The windows of a document. Its first id is read and never scored."""
    scored = 1
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        if end > scored:
            yield Window(ids[begin:end], scored - begin)
            scored = end
        if end == len(ids):
            return


@dataclass
class Counted:
    """What was read, and what it cost. tokens, bytes: those that were scored. unknown: tokens that stand for anything.
    lossy: documents that the tokenizer does not give back."""

    nats: float = 0.0
    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    windows: int = 0
    unknown: int = 0
    lossy: int = 0
    short: int = 0
    waiting: list[Window] = field(default_factory=list)


def check_stride(stride: int | None, context: int) -> int:
    """The stride: half of the context unless given. Raises InputError for one that would leave tokens out."""
    if stride is None:
        return max(1, context // 2)
    if not 1 <= stride < context:
        raise InputError(f"stride={stride} should be 1 or more, and below the {context} tokens that a window has.")
    return stride


def measure(
    model: Decoder, tokenizer: Tokenizer, found: Iterable[Found], *, column: str, context: int, stride: int
) -> tuple[list[Score], Counted]:
    """Loss, perplexity and bits per byte of these documents, and what was counted. Raises InputError for no token."""
    counted = Counted()
    for document in _documents(found, tokenizer, column):
        counted.documents += 1
        if len(document.ids) < 2:
            counted.short += 1
            continue
        counted.bytes += document.bytes
        counted.tokens += len(document.ids) - 1
        counted.unknown += 0 if tokenizer.unk_id is None else document.ids.count(tokenizer.unk_id)
        counted.lossy += document.lossy
        for window in windows(document.ids, context, stride):
            counted.windows += 1
            counted.waiting.append(window)
            if len(counted.waiting) == TOGETHER:
                _score(model, counted)
    _score(model, counted)
    if not counted.tokens:
        raise InputError("there is nothing to score: no document has two tokens or more.")
    loss = counted.nats / counted.tokens
    return [
        Score("loss", loss, "nats a token"),
        perplexity(loss),
        bits_per_byte(loss, counted.tokens, counted.bytes),
    ], counted


class Document(NamedTuple):
    """A document's ids, and the bytes of those that are scored. lossy: the ids do not give back the text."""

    ids: list[int]
    bytes: int
    lossy: bool


def _documents(found: Iterable[Found], tokenizer: Tokenizer, column: str) -> Iterator[Document]:
    """The documents. What the tokenizer puts before a text (`<s>`) is the first id, which is read and never scored;
    else it is the text's own. What it puts after a text is left out. A long document comes in rows that are joined."""
    before, _ = frame(tokenizer)
    ids, size, lossy = list(before), 0, False
    for one in found:
        text = text_of(one.row, column)
        new = tokenizer.encode_ids(text, special=False)
        size += len(text.encode()) - (0 if ids or not new else _bytes_of_first(tokenizer, text))
        lossy = lossy or tokenizer.decode(new).strip() != text.strip()
        ids += new
        if one.last:
            yield Document(ids, size, lossy)
            ids, size, lossy = list(before), 0, False


def frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before a text, and after it."""
    encoding = tokenizer.encode("a")
    own = [place for place, side in enumerate(encoding.sequences) if side is not None]
    if not own:
        return list(encoding.ids), []
    return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]


def _bytes_of_first(tokenizer: Tokenizer, text: str) -> int:
    """The bytes of a text's first token; of a token that is a part of a character, its own."""
    encoding = tokenizer.encode(text[:1000], special=False)
    end = encoding.offsets[0][1]
    if len(encoding) > 1 and encoding.offsets[1][0] < end:
        return len(tokenizer.bytes_of(encoding.ids[0]))
    return len(text[:end].encode())


@torch.inference_mode()
def _score(model: Decoder, counted: Counted) -> None:
    """Add what the waiting windows cost; those of like length are read together."""
    waiting = sorted(counted.waiting, key=lambda window: -len(window.ids))
    counted.waiting.clear()
    with without_dropout(model):
        while waiting:
            width = len(waiting[0].ids)
            rows = max(1, LOGITS // (width * model.config.vocab_size))
            batch, waiting = waiting[:rows], waiting[rows:]
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            labels = torch.full((len(batch), width), IGNORED)
            for row, window in enumerate(batch):
                told = torch.tensor(window.ids)
                ids[row, : len(told)] = told  # what follows a text is read by none of its tokens
                labels[row, window.first - 1 : len(told) - 1] = told[window.first :]
            whole = Batch(inputs={"input_ids": ids}, labels=labels).to(model.device)
            counted.nats += float(total_loss(model(**whole.inputs), whole))
