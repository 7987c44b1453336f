"""From a recipe's data to the loop's batches. In one of two ways, which the recipe chooses:

    rows      tokenised once, and mapped from the disk: any row can be asked for by number, so a step says which it
              reads, and the next batches are made in a thread while the model computes
    a stream  `data.stream`: read and tokenised as it comes, nothing stored; where it stands is saved with the run

What is evaluated on is rows in both, the same batches each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from clearhead.api.building import Built
from clearhead.api.recipe import Data, Recipe, Streaming
from clearhead.api.recipe import Source as AnySource
from clearhead.errors import ConfigError, TrainingError
from clearhead.model.config import ModelConfig
from clearhead.train.batch import Batch
from clearhead.train.data.as_given import AsGiven
from clearhead.train.data.cache import Cache
from clearhead.train.data.order import ByLength, Drawn, Order, Shuffled
from clearhead.train.data.packing import Documents, Fields, Rows, Windows, packed
from clearhead.train.data.prepare import prepared
from clearhead.train.data.stream import Stream
from clearhead.train.distributed import Processes
from clearhead.train.feed import Ahead, Feed, StreamFeed, once
from clearhead.train.objectives.common import Chance, Vocabulary
from clearhead.train.objectives.infilling import TextInfilling
from clearhead.train.objectives.spans import SpanCorruption


class Stretch:
    """Some rows of others, from one number to another."""

    def __init__(self, rows: Rows, start: int, stop: int) -> None:
        self._rows, self._start, self._stop = rows, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, row: int) -> Fields:
        return self._rows[self._start + row]

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """How many ids each has."""
        return self._rows.lengths[self._start : self._stop]

    def documents(self, row: int) -> Sequence[int]:
        """The documents that a row has ids of."""
        return self._rows.documents(self._start + row)


@dataclass
class Batches:
    """What the loop is fed, and the same validation batches each time. n_rows: None of a stream, which has no end.
    given: what the rows held out are in their files; None where none are.

    fingerprint: the hash of the data and of what became of it; of a stream, of what it is made from.
    """

    feed: Ahead | StreamFeed
    validation: list[Batch]
    held_out: Rows
    n_rows: int | None
    fingerprint: str
    given: AsGiven | None

    def __str__(self) -> str:
        rows = "a stream of rows" if self.n_rows is None else f"{self.n_rows:,} rows"
        batches = len(self.validation)
        return f"{rows} to learn from, {batches} {'batch' if batches == 1 else 'batches'} held out"

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """While the block lasts, batches are made ahead where they can be. No thread is left, whatever ends it."""
        with self.feed if isinstance(self.feed, Ahead) else nullcontext():
            yield


def batches(recipe: Recipe, parts: Built, processes: Processes, *, quiet: bool = False) -> Batches:
    """The batches of a recipe; the data is tokenised first, where it was not before.

    Raises what the data raises.
    """
    data, learn, vocabulary = recipe.data, recipe.objective, parts.vocabulary
    shared = {"seed": recipe.loop.seed, "parts": recipe.parts, "rank": processes.rank, "world": processes.size}

    def named() -> tuple[Rows, AsGiven | None]:
        if data.validation is None:
            return _Nothing(), None
        rows, cache = _rows(recipe, parts, data.validation, processes, quiet)
        return rows, AsGiven(data.validation, data.encoder, cache, rows)

    if data.streaming is not None:
        stream, (held_out, given) = _stream(recipe, parts, data.streaming), named()
        following = StreamFeed(stream, learn, vocabulary, batch=recipe.batch, **shared)
        looked_at = _validation(held_out, recipe, vocabulary)
        return Batches(following, looked_at, held_out, None, stream.fingerprint, given)
    rows, cache = _rows(recipe, parts, data.source, processes, quiet)
    if data.validation is not None:
        held_out, given = named()
    else:
        rows, held_out = divided(rows, data)
        given = AsGiven(data.source, data.encoder, cache, held_out) if len(held_out) else None
    feed = Ahead(Feed(rows, order_of(rows, recipe), learn, vocabulary, **shared), until=recipe.loop.steps)
    return Batches(feed, _validation(held_out, recipe, vocabulary), held_out, len(rows), cache.fingerprint, given)


# ── where rows come from ─────────────────────────────────────────────────────────────────────────────────────────────


class _Nothing:
    """No rows."""

    lengths: Int[np.ndarray, " rows"] = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return 0

    def __getitem__(self, row: int) -> Fields:
        raise IndexError(row)

    def documents(self, row: int) -> Sequence[int]:
        raise IndexError(row)


def _rows(recipe: Recipe, parts: Built, source: AnySource, processes: Processes, quiet: bool) -> tuple[Rows, Cache]:
    """The rows of a source, tokenised and packed; they are known to fit the model. One process of a machine reads the
    cache through; the others trust it, and open what is there when that one is done: it may be made anew."""
    data, config = recipe.data, parts.model.config
    looks = processes.first_here
    cache = prepared(
        source, parts.tokenizer, data.encoder, verify=looks, quiet=quiet, waits_quietly=not processes.first
    )
    if len(set(processes.all_told(cache.fingerprint))) > 1:
        raise TrainingError("the processes read different data; give all of them the same files and the same recipe.")
    cache = cache if looks else Cache(cache.folder, verify=False)
    cache.check_fits(config.vocab_size, config.target_vocab_size if isinstance(config, ModelConfig) else None)
    rows = packed(cache, data.packing, ahead=recipe.objective.ahead)
    if isinstance(config, ModelConfig) and isinstance(data.packing, Documents):
        _check_lengths(rows, recipe, config)
    return rows, cache


def _stream(recipe: Recipe, parts: Built, streaming: Streaming) -> Stream:
    data, config = recipe.data, parts.model.config
    return Stream(
        data.source,
        parts.tokenizer,
        data.encoder,
        packing=data.packing,
        ahead=recipe.objective.ahead,
        shuffle=streaming.shuffle,
        seed=recipe.loop.seed,
        vocab_size=config.vocab_size,
        target_vocab_size=config.target_vocab_size if isinstance(config, ModelConfig) else None,
    )


def _check_lengths(rows: Rows, recipe: Recipe, config: ModelConfig) -> None:
    """Raise ConfigError for a document that is longer than the model's positions reach, before hours of training are
    lost to it. An objective that shortens texts is let be."""
    if not any(stack.bounded for stack in config.stacks) or isinstance(
        recipe.objective, SpanCorruption | TextInfilling
    ):
        return
    most = config.context + recipe.objective.ahead
    row = int(rows.lengths.argmax())
    if rows.lengths[row] > most:
        raise ConfigError(
            f"row {row} has {rows.lengths[row]:,} tokens, and the model reads {most:,}; cut texts with "
            f"data.encoder.longest = {most}, or choose a model with a longer context."
        )


def divided(rows: Rows, data: Data) -> tuple[Rows, Rows]:
    """The rows to learn from, and the last ones, which are held out. Windows that reach over the seam are left out."""
    cut = round(len(rows) * (1 - data.held_out))
    gap = data.packing.length if isinstance(data.packing, Windows) else 0
    if cut - gap < 1 or (data.held_out and cut == len(rows)):
        raise TrainingError(
            f"{len(rows)} rows are too few to hold {data.held_out:.0%} of them out; give more data, or held_out = 0."
        )
    return Stretch(rows, 0, cut - gap if data.held_out else cut), Stretch(rows, cut, len(rows))


# ── which of them a step reads ───────────────────────────────────────────────────────────────────────────────────────


def order_of(rows: Rows, recipe: Recipe) -> Order:
    """The order in which the rows are learned from. Raises ConfigError for a row that no batch holds."""
    seed = recipe.loop.seed
    if recipe.batch_tokens is not None:
        longest = int(rows.lengths.max(initial=0))
        if longest > recipe.batch_tokens:
            raise ConfigError(
                f"row {int(rows.lengths.argmax())} has {longest:,} tokens, more than batch_tokens = "
                f"{recipe.batch_tokens:,} hold; give more, or cut texts with data.encoder.longest."
            )
        return ByLength(rows.lengths, tokens=recipe.batch_tokens, seed=seed)
    if recipe.data.by_length:
        return ByLength(rows.lengths, batch=recipe.batch, seed=seed)
    if isinstance(recipe.data.packing, Windows):
        return Drawn(n_rows=len(rows), batch=recipe.batch, seed=seed)
    return Shuffled(n_rows=len(rows), batch=recipe.batch, seed=seed)


def _validation(rows: Rows, recipe: Recipe, vocabulary: Vocabulary) -> list[Batch]:
    """The batches that are evaluated on: all rows once, or windows drawn once; at most `evaluation.batches`. Raises
    TrainingError where none of them has a label: before hours of training, and not at the first look."""
    most, objective = recipe.evaluation.batches, recipe.objective
    if not len(rows) or not most:
        return []
    if isinstance(recipe.data.packing, Windows):
        order = Drawn(n_rows=len(rows), batch=recipe.batch, seed=recipe.loop.seed + 1)
        drawn = [[int(n) for n in order.rows(step)] for step in range(most)]
        found = [
            objective.batch([rows[n] for n in numbers], vocabulary, Chance(seed=0, step=step), numbers)
            for step, numbers in enumerate(drawn)
        ]
    else:
        found = list(once(rows, objective, vocabulary, batch=recipe.batch, most=most))
    if not any(batch.n_labels for batch in found):
        raise TrainingError(
            "none of the rows held out has a label, so there is nothing to evaluate on; name others with "
            "data.validation, or give evaluation.batches = 0."
        )
    return found
