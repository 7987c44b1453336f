"""What all objectives share: the special ids, chance that belongs to a place in the run, and padding."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from clearhead.errors import ConfigError
from clearhead.text import Tokenizer
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.data.order import random

Ids = Int[np.ndarray, " T"]
Numbers = Shaped[np.ndarray, " _"]
"""As many as there are: rows of a batch differ in length."""
Row = Mapping[str, Shaped[np.ndarray, " _"]]
"""A row of the cache, or of a packing: names and numbers."""

_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_ENDS = (".", "!", "?")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The ids with a meaning. size: all ids are below it. special: those that are no text. start: what a decoder's
    input begins with. sentinels: T5's `<extra_id_0>` …, in order. stops: ids of tokens that end a sentence."""

    size: int
    pad: int = 0
    bos: int | None = None
    eos: int | None = None
    mask: int | None = None
    start: int | None = None
    special: frozenset[int] = frozenset()
    sentinels: tuple[int, ...] = ()
    stops: frozenset[int] = frozenset()

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, start: int | None = None, size: int | None = None) -> Vocabulary:
        """A tokenizer's. start: the model's `decoder_start`; size: its vocabulary, where that is smaller or larger."""
        named = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id)
        pad = next((id for id in (tokenizer.pad_id, tokenizer.target.pad_id, tokenizer.eos_id) if id is not None), 0)
        vocabulary = tokenizer.backend.get_vocab()
        sentinels = {int(at[1]): id for token, id in vocabulary.items() if (at := _SENTINEL.fullmatch(token))}
        special = {id for id in tokenizer.backend.get_added_tokens_decoder() if tokenizer.is_special(id)}
        special |= {id for id in named if id is not None} | set(sentinels.values())
        target_eos = tokenizer.target.eos_id
        return cls(
            size=size if size is not None else tokenizer.vocab_size,
            pad=pad,
            bos=tokenizer.bos_id,
            eos=tokenizer.eos_id if target_eos is None else target_eos,
            mask=tokenizer.mask_id,
            start=start,
            special=frozenset(special - {tokenizer.unk_id}),
            sentinels=tuple(sentinels[number] for number in sorted(sentinels)),
            stops=frozenset(id for token, id in vocabulary.items() if token.strip("Ġ▁# ") in _ENDS),
        )

    @cached_property
    def ordinary(self) -> Int[np.ndarray, " n"]:
        """The ids that stand for text."""
        return np.setdiff1d(np.arange(self.size), np.array(sorted(self.special), dtype=np.int64))

    @cached_property
    def _is_special(self) -> Bool[np.ndarray, " V"]:
        table = np.zeros(max([self.size, *(id + 1 for id in self.special)]), dtype=bool)
        table[list(self.special)] = True
        return table

    def are_text(self, ids: Ids) -> Bool[np.ndarray, " T"]:
        """Which ids stand for text."""
        return ~self._is_special[ids]


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Where in the run a batch stands. The chance of a row depends on the seed, the step and the row's place in the
    whole step's batch: never on who computes it, or on the rows beside it. first: the place of this part's first row.
    """

    seed: int
    step: int
    first: int = 0

    def of(self, at: int) -> np.random.Generator:
        """The generator of row `at` of this part."""
        return random(self.seed, 6, self.step, self.first + at)


@runtime_checkable
class Objective(Protocol):
    """What is learned: from rows, the special ids and chance to a batch. A pure function."""

    @property
    def ahead(self) -> int:
        """How many ids a packed row needs beyond the length that the model reads: 1 where the next is predicted."""
        ...

    def batch(self, rows: Sequence[Row], vocabulary: Vocabulary, chance: Chance, numbers: Sequence[int] = ()) -> Batch:
        """The batch of these rows. numbers: the rows' own, so that a bad batch can be named."""
        ...


def padded(
    rows: Sequence[Numbers], fill: int, width: int | None = None
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"] | None]:
    """Rows side by side, `fill` after the shorter ones; and which are no filling; None where none is."""
    longest = max([len(row) for row in rows], default=0) if width is None else width
    table = np.full((len(rows), max(longest, 1)), fill, dtype=np.int64)
    lengths = np.array([len(row) for row in rows])
    for at, row in enumerate(rows):
        table[at, : len(row)] = row
    if len(rows) and bool((lengths == table.shape[1]).all()):
        return torch.from_numpy(table), None
    return torch.from_numpy(table), torch.from_numpy(np.arange(table.shape[1]) < lengths[:, None])


def inputs_of(ids: Sequence[Numbers], vocabulary: Vocabulary, prefix: str = "") -> dict[str, Tensor]:
    """`input_ids`, and `attention_mask` where something was filled in; or both with a prefix."""
    table, real = padded(ids, vocabulary.pad)
    found = {f"{prefix}input_ids": table}
    if real is not None:
        found[f"{prefix}attention_mask"] = real
    return found


def document_inputs(rows: Sequence[Row], n: Sequence[int]) -> dict[str, Tensor]:
    """`documents`, where rows are packed: of the first `n` ids of each; the filling belongs to the last document."""
    if not rows or "documents" not in rows[0]:
        return {}
    width = max([*n, 1])
    table = np.zeros((len(rows), width), dtype=np.int64)
    for at, (row, size) in enumerate(zip(rows, n, strict=True)):
        table[at, :size] = row["documents"][:size]
        table[at, size:] = table[at, size - 1] if size else 0
    if not table.any():  # one document a row: nothing to keep apart
        return {}
    return {"documents": torch.from_numpy(table)}


def labels_of(labels: Sequence[Numbers], width: int) -> Int[Tensor, "B T"]:
    """Labels side by side, IGNORED after the shorter ones."""
    return padded(labels, IGNORED, width)[0]


def decoder_side(targets: Sequence[Numbers], vocabulary: Vocabulary) -> tuple[dict[str, Tensor], Int[Tensor, "B T"]]:
    """Teacher forcing: the decoder reads the start id and the target but for its last id, and should say the target
    (Williams & Zipser 1989). Raises ConfigError where the model names no id to start from."""
    if vocabulary.start is None:
        raise ConfigError("the model names no id that its decoder starts from; set SpecialTokens.decoder_start.")
    read = [np.concatenate([[vocabulary.start], target[:-1]]) if len(target) else target for target in targets]
    inputs = inputs_of(read, vocabulary, "decoder_")
    return inputs, labels_of(targets, inputs["decoder_input_ids"].shape[1])


def needed(id: int | None, what: str, purpose: str) -> int:
    """An id that the objective cannot do without. Raises ConfigError."""
    if id is None:
        raise ConfigError(f"this tokenizer has no {what} token, which {purpose} needs; train or load one that has.")
    return id


def check_share(name: str, value: float, *, above: float = 0.0) -> None:
    """Raise ConfigError unless above … 1."""
    if not above <= value <= 1 or (above == 0.0 and value == 0.0 and name in ("rate", "density")):
        raise ConfigError(f"{name}={value} should be a share, above 0 and at most 1.")
