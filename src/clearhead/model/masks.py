"""Masks. A mask is a rule: True means that this query may read this key. No T×T tensor is made unless asked for.

A `Mask` holds rules, all of which must agree, and biases, which are added to the scores. Any tile of it can be had
for any rows and columns; a kernel takes what it needs and forgets it, and the lens keeps the rule, not the tile.

What a query that may read nothing gets is defined here, once: weights of 0, an output of 0, a log-sum-exp of 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NOTHING = 0.0
"""The log-sum-exp of a query that may read nothing: exp(−∞ − 0) = 0, so that its weights are 0 and never NaN."""


class Rule(ABC):
    """Which query may read which key. `i` and `j` are the positions of queries and keys among the keys."""

    @abstractmethod
    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "#B #H q k"]:
        """True where query i may read key j; batch and head axes are 1 where the rule does not depend on them."""

    def reach(self, first: int, last: int, keys: int) -> tuple[int, int]:
        """A range of keys outside which no query in first…last reads anything: kernels skip the rest."""
        return 0, keys

    def of(self, batch: int, head: int) -> Rule:
        """The rule of one text and one head."""
        return self

    def kept(self) -> Rule:
        """A copy that later changes of a caller's tensors do not reach."""
        return self

    def allows_all(self, first: int, last: int, keys: int) -> bool:
        """True if it is known, without looking, that queries first…last may read all `keys` keys."""
        return False

    @property
    def per_head(self) -> bool:
        """True where the tiles of `allows` have a head axis: kernels then write smaller ones."""
        return False


@dataclass(frozen=True)
class Causal(Rule):
    """A query reads itself and what came before."""

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "1 1 q k"]:
        return (j[None, :] <= i[:, None])[None, None]

    def reach(self, first: int, last: int, keys: int) -> tuple[int, int]:
        return 0, min(keys, last + 1)

    def allows_all(self, first: int, last: int, keys: int) -> bool:
        return first >= keys - 1


@dataclass(frozen=True)
class Window(Rule):
    """A query reads keys less than `size` away, before it and after it (Mistral: j > i − size)."""

    size: int

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "1 1 q k"]:
        return ((i[:, None] - j[None, :]).abs() < self.size)[None, None]

    def reach(self, first: int, last: int, keys: int) -> tuple[int, int]:
        return min(keys, max(0, first - self.size + 1)), min(keys, last + self.size)

    def allows_all(self, first: int, last: int, keys: int) -> bool:
        return last - self.size < 0 and first + self.size >= keys


@dataclass(frozen=True, eq=False)
class KeyPadding(Rule):
    """Padding is not read. `real` is True at tokens, False at padding."""

    real: Bool[Tensor, "B Tk"]

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "B 1 #q k"]:
        return self.real[:, None, None, j]

    def of(self, batch: int, head: int) -> KeyPadding:
        return KeyPadding(self.real[batch : batch + 1])

    def kept(self) -> KeyPadding:
        return KeyPadding(self.real.clone())


@dataclass(frozen=True, eq=False)
class Documents(Rule):
    """Texts packed into one row do not read one another: a query reads keys of its own document."""

    of_query: Int[Tensor, "B Tq"]
    of_key: Int[Tensor, "B Tk"]

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "B 1 q k"]:
        return (self.of_query[:, i][:, :, None] == self.of_key[:, j][:, None, :])[:, None]

    def of(self, batch: int, head: int) -> Documents:
        return Documents(self.of_query[batch : batch + 1], self.of_key[batch : batch + 1])

    def kept(self) -> Documents:
        return Documents(self.of_query.clone(), self.of_key.clone())


@dataclass(frozen=True, eq=False)
class Prefix(Rule):
    """Causal, but the first `length` tokens are read by every query (prefix language models)."""

    length: Int[Tensor, " B"]

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "B 1 q k"]:
        causal = j[None, :] <= i[:, None]
        return (causal[None] | (j[None, None, :] < self.length[:, None, None]))[:, None]

    def of(self, batch: int, head: int) -> Prefix:
        return Prefix(self.length[batch : batch + 1])

    def kept(self) -> Prefix:
        return Prefix(self.length.clone())


@dataclass(frozen=True, eq=False)
class Table(Rule):
    """The rule written out, for masks that come from elsewhere. Axes of size 1 stand for all."""

    allowed: Bool[Tensor, "#B #H #Tq Tk"]

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "#B #H #q k"]:
        rows = self.allowed if self.allowed.shape[2] == 1 else self.allowed[:, :, i]
        return rows[..., j]

    def of(self, batch: int, head: int) -> Table:
        return Table(_pick(self.allowed, batch, head))

    def kept(self) -> Table:
        return Table(self.allowed.clone())

    @property
    def per_head(self) -> bool:
        return self.allowed.shape[1] > 1


class Bias(ABC):
    """What is added to the scores. `i` and `j` are positions among the keys, as for a rule."""

    @abstractmethod
    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "#B #H q k"]:
        """The numbers to add to the scores of these queries and keys."""

    @abstractmethod
    def of(self, batch: int, head: int) -> Bias:
        """The bias of one text and one head."""

    def kept(self) -> Bias:
        """A copy that later changes of the model's weights do not reach."""
        return self

    @property
    def needs_grad(self) -> bool:
        """True while it is being trained."""
        return False


@dataclass(frozen=True, eq=False)
class SlopeBias(Bias):
    """ALiBi: −slope · |i − j|, a slope per head (Press et al. 2021)."""

    slopes: Float[Tensor, " H"]

    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "1 H q k"]:
        distance = (i[:, None] - j[None, :]).abs().to(self.slopes.dtype)
        return (-self.slopes[:, None, None] * distance)[None]

    def of(self, batch: int, head: int) -> SlopeBias:
        return SlopeBias(self.slopes[head : head + 1])


@dataclass(frozen=True, eq=False)
class RoundedSlopeBias(Bias):
    """ALiBi in bfloat16: −|r(j) − r(i)| · scale, r the slope times a token's place in its text, rounded (Falcon)."""

    slopes: Float[Tensor, " H"]
    places: Int[Tensor, "B Tk"]
    scale: float = 1.0

    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "B H q k"]:
        steps = self.slopes.bfloat16()[:, None] * self.places[:, None]  # (B, H, Tk)
        steps = steps.to(self.slopes.dtype) * self.scale
        return -(steps[:, :, i, None] - steps[:, :, None, j]).abs()

    def of(self, batch: int, head: int) -> RoundedSlopeBias:
        return replace(self, slopes=self.slopes[head : head + 1], places=self.places[batch : batch + 1])

    def kept(self) -> RoundedSlopeBias:
        return replace(self, places=self.places.clone())


@dataclass(frozen=True, eq=False)
class BucketBias(Bias):
    """T5: a trained number per head and distance bucket; nearby distances have a bucket each, far ones share."""

    table: Float[Tensor, "buckets H"]
    bidirectional: bool
    max_distance: int

    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "1 H q k"]:
        buckets = distance_buckets(
            j[None, :] - i[:, None],
            buckets=self.table.shape[0],
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )
        return self.table[buckets].permute(2, 0, 1)[None]

    def of(self, batch: int, head: int) -> BucketBias:
        return replace(self, table=self.table[:, head : head + 1])

    def kept(self) -> BucketBias:
        return replace(self, table=self.table.detach().clone())

    @property
    def needs_grad(self) -> bool:
        return self.table.requires_grad and torch.is_grad_enabled()


@dataclass(frozen=True, eq=False)
class TableBias(Bias):
    """A bias written out, for models that hand one over. Axes of size 1 stand for all."""

    table: Float[Tensor, "#B #H #Tq Tk"]

    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "#B #H #q k"]:
        rows = self.table if self.table.shape[2] == 1 else self.table[:, :, i]
        return rows[..., j]

    def of(self, batch: int, head: int) -> TableBias:
        return TableBias(_pick(self.table, batch, head))

    def kept(self) -> TableBias:
        return TableBias(self.table.detach().clone())

    @property
    def needs_grad(self) -> bool:
        return self.table.requires_grad and torch.is_grad_enabled()


def _pick(table: Tensor, batch: int, head: int) -> Tensor:
    b = 0 if table.shape[0] == 1 else batch
    h = 0 if table.shape[1] == 1 else head
    return table[b : b + 1, h : h + 1]


def distance_buckets(
    distance: Int[Tensor, "*shape"], *, buckets: int, max_distance: int, bidirectional: bool
) -> Int[Tensor, "*shape"]:
    """T5's bucket of each distance j − i (Raffel et al. 2020, §2.1): exact up to half, then logarithmic.

    bidirectional: half of the buckets are for keys after the query; else those keys all share bucket 0.
    """
    later = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        later = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    spread = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    far = (exact + spread.long()).clamp(max=buckets - 1)
    return later + torch.where(distance < exact, distance, far)


@dataclass(frozen=True, eq=False)
class Mask:
    """Rules that must all agree, and biases that are added. Row i of the call stands at position i + `offset`."""

    rules: tuple[Rule, ...] = ()
    biases: tuple[Bias, ...] = ()
    offset: int = 0
    _written: dict[tuple[object, ...], Tensor | None] = field(default_factory=dict, repr=False)
    _kept: list[Mask] = field(default_factory=list, repr=False)

    def and_(self, *rules: Rule) -> Mask:
        """The same with more rules, all of which must agree."""
        return Mask((*self.rules, *rules), self.biases, self.offset) if rules else self

    def plus(self, *biases: Bias) -> Mask:
        """The same with more biases."""
        return Mask(self.rules, (*self.biases, *biases), self.offset) if biases else self

    def of(self, batch: int, head: int) -> Mask:
        """The mask of one text and one head, with batch and head axes of size 1."""
        rules = tuple(rule.of(batch, head) for rule in self.rules)
        return Mask(rules, tuple(bias.of(batch, head) for bias in self.biases), self.offset)

    def kept(self) -> Mask:
        """A copy to keep: no tile written out, and no number that others could change later. Made once."""
        if not self._kept:
            rules = tuple(rule.kept() for rule in self.rules)
            self._kept.append(Mask(rules, tuple(bias.kept() for bias in self.biases), self.offset))
        return self._kept[0]

    def allowed(self, rows: Int[Tensor, " q"], cols: Int[Tensor, " k"]) -> Bool[Tensor, "#B #H #q k"] | None:
        """Which of these rows may read which of these columns, or None where all may."""
        i = rows + self.offset
        result: Tensor | None = None
        for rule in self.rules:
            tile = rule.allows(i, cols)
            result = tile if result is None else result & tile
        return result

    def bias(self, rows: Int[Tensor, " q"], cols: Int[Tensor, " k"]) -> Float[Tensor, "#B #H #q k"] | None:
        """What is added to the scores of these rows and columns, or None."""
        tiles = [bias.add(rows + self.offset, cols) for bias in self.biases]
        return sum(tiles[1:], tiles[0]) if tiles else None

    def additive(
        self, rows: range, cols: range, *, dtype: torch.dtype, device: torch.device
    ) -> Float[Tensor, "#B #H q k"] | None:
        """The tile as numbers to add to scores: the bias, and −∞ where reading is not allowed; None if all zeros.

        The last tile is remembered, so that the layers of one forward pass write it once.
        """
        key = (rows, cols, dtype, device, torch.is_inference_mode_enabled())
        if not self.needs_grad and key in self._written:
            return self._written[key]
        i, j = _indices(rows, device), _indices(cols, device)
        allowed, bias = self.allowed(i, j), self.bias(i, j)
        if allowed is None:
            tile = bias.to(dtype) if bias is not None else None
        else:
            base = bias.to(dtype) if bias is not None else torch.zeros((), dtype=dtype, device=device)
            tile = torch.where(allowed, base, torch.tensor(-math.inf, dtype=dtype, device=device))
        if tile is not None:
            tile = tile.expand(*tile.shape[:2], len(rows), len(cols))
        if not self.needs_grad:
            self._written.clear()
            self._written[key] = tile
        return tile

    def reach(self, rows: range, keys: int) -> range:
        """The keys that these rows could read at all; the kernels skip the others."""
        first, last = rows.start + self.offset, rows.stop - 1 + self.offset
        low, high = 0, keys
        for rule in self.rules:
            a, b = rule.reach(first, last, keys)
            low, high = max(low, a), min(high, b)
        return range(low, max(low, high))

    def is_open(self, rows: range, keys: int) -> bool:
        """True if every one of these rows reads every key and nothing is added."""
        first, last = rows.start + self.offset, rows.stop - 1 + self.offset
        return not self.biases and all(rule.allows_all(first, last, keys) for rule in self.rules)

    def is_causal(self, rows: range, keys: int) -> bool:
        """True if, for these rows, it is the plain lower triangle and nothing else."""
        first, last = rows.start + self.offset, rows.stop - 1 + self.offset
        others = [rule for rule in self.rules if not rule.allows_all(first, last, keys)]
        windows_reach_back = all(isinstance(r, Causal) or (isinstance(r, Window) and r.size > last) for r in others)
        has_causal = any(isinstance(rule, Causal) for rule in others)
        return not self.biases and has_causal and windows_reach_back and first == 0 and last == keys - 1

    @property
    def per_head(self) -> bool:
        """True where its tiles have a head axis."""
        return bool(self.biases) or any(rule.per_head for rule in self.rules)

    @property
    def needs_grad(self) -> bool:
        """True while one of its biases is being trained."""
        return any(bias.needs_grad for bias in self.biases)


def _indices(span: range, device: torch.device) -> Int[Tensor, " n"]:
    return torch.arange(span.start, span.stop, device=device)


def additive_table(table: Float[Tensor, "#B #H #Tq Tk"]) -> tuple[Sequence[Rule], Sequence[Bias]]:
    """A float mask from elsewhere, as a rule and a bias: numbers at or below half the lowest float forbid."""
    lowest = torch.finfo(table.dtype).min / 2
    allowed = table > lowest
    rest = torch.where(allowed, table, torch.zeros((), dtype=table.dtype, device=table.device))
    return [Table(allowed)], ([TableBias(rest)] if bool(rest.any()) else [])
