"""Files, tokenizers and encoders small enough to see through."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from clearhead.text import Tokenizer
from clearhead.train.data.cache import Cache
from clearhead.train.data.prepare import prepared
from clearhead.train.data.readers import GivenRows
from clearhead.train.data.rows import Found, Skipped, Source

VERSES = [
    "In the beginning God created the heaven and the earth.",
    "And the earth was without form, and void; and darkness was upon the face of the deep.",
    "And God said, Let there be light: and there was light.",
    "Naïve façade, 🙂 – and “quotes”.",
]


def bytes_tokenizer(**special: str) -> Tokenizer:
    """A byte an id; `<eos>` is 256."""
    return Tokenizer.train([], kind="byte", special_tokens=special or {"eos_token": "<eos>"})


def pieces_tokenizer() -> Tokenizer:
    """BERT's kind, learned from the verses."""
    return Tokenizer.train(VERSES, kind="wordpiece", vocab_size=120)


def read(source: Source) -> tuple[list[Any], list[str]]:
    """All rows of a source, and why others were left out."""
    reader = source.open()
    found = [each for piece in reader.pieces() for each in reader.read(piece)]
    rows = [each.row for each in found if isinstance(each, Found)]
    return rows, [each.why for each in found if isinstance(each, Skipped)]


def cache_of(folder: Path, source: Source, tokenizer: Tokenizer, encoder: Any, **settings: Any) -> Cache:
    """Prepared quietly."""
    return prepared(source, tokenizer, encoder, folder=folder / "cache", quiet=True, **settings)


class SlowRows(GivenRows):
    """Rows that take a while to be read, in whatever process reads them."""

    def read(self, piece):  # type: ignore[no-untyped-def]
        for found in super().read(piece):
            time.sleep(0.002)
            yield found
