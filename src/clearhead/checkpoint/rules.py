"""Rules for weights. A table of rows maps foreign tensors to ours, and each row reads both ways.

    Same("h.{layer}.ln_1.weight", "decoder.blocks.{layer}.attention_norm.before.weight")
    Transposed(…)                      stored (in, out), as GPT-2's Conv1D
    Split(theirs, (q, k, v))           one foreign tensor, several of ours, by our sizes; or interleaved head by head
    Stacked(theirs, ours)              several foreign tensors, numbered by `{piece}`, one of ours
    Copy(theirs, of=…)                 a tied tensor, that some files store a second time
    Fixed(theirs, …)                   a table that the config tells, and that some files store all the same
    IgnoredTensor(pattern, reason)     no part of the model: masks, position ids, heads that we do not read

The config decides which rows hold: a row whose tensors of ours the model does not have falls away. Every foreign
tensor is then read, ignored with a reason or refused by name, and every tensor of ours is filled, or the missing named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.model.config import Head, ModelConfig

PIECE = "{piece}"
"""Stands in a name for the number of a piece."""


class WeightRow:
    """One row: a foreign tensor and those of ours that it holds. Names may have a `{layer}` in them."""

    theirs: str
    ours: tuple[str, ...]

    def split(self, tensor: Tensor, like: tuple[Tensor, ...], config: ModelConfig) -> tuple[Tensor, ...]:
        """The foreign tensor, as ours; `like` has our shapes."""
        raise NotImplementedError

    def join(self, tensors: tuple[Tensor, ...], config: ModelConfig) -> Tensor:
        """Ours, as the foreign tensor."""
        raise NotImplementedError

    def shape(self, tensors: tuple[Tensor, ...], config: ModelConfig) -> tuple[int, ...]:
        """The foreign tensor's shape, without its numbers."""
        return tuple(self.join(tuple(tensor.detach().to("meta") for tensor in tensors), config).shape)

    def names(self, tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
        """The foreign tensors' names: one, unless ours is stored in pieces."""
        return (self.theirs,)

    def gather(self, pieces: tuple[Tensor, ...], like: tuple[Tensor, ...], config: ModelConfig) -> tuple[Tensor, ...]:
        """The foreign tensors, as many as there are names, as ours."""
        return self.split(pieces[0], like, config)

    def piece(self, number: int, tensors: tuple[Tensor, ...], config: ModelConfig) -> Tensor:
        """Ours, as the foreign tensor of this number."""
        return self.join(tensors, config)


class _One(WeightRow):
    """A row of one tensor each."""

    def split(self, tensor: Tensor, like: tuple[Tensor, ...], config: ModelConfig) -> tuple[Tensor, ...]:
        """The one tensor."""
        return (self.forth(tensor, config),)

    def join(self, tensors: tuple[Tensor, ...], config: ModelConfig) -> Tensor:
        """The one tensor."""
        return self.back(tensors[0], config)

    def forth(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """From theirs to ours."""
        return tensor

    def back(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """From ours to theirs."""
        return tensor


@dataclass(frozen=True, init=False)
class Same(_One):
    """The same numbers in the same order."""

    theirs: str
    ours: tuple[str, ...]

    def __init__(self, theirs: str, ours: str) -> None:
        object.__setattr__(self, "theirs", theirs)
        object.__setattr__(self, "ours", (ours,))


class Transposed(Same):
    """A matrix stored (in, out) where ours is (out, in)."""

    def forth(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """Its transpose."""
        return tensor.t()

    def back(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """Its transpose."""
        return tensor.t()


class Leading(Same):
    """A tensor stored with one more axis of size 1 in front (BART's final_logits_bias)."""

    def forth(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """Without the axis."""
        return tensor.squeeze(0)

    def back(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """With the axis."""
        return tensor.unsqueeze(0)


class RotaryPairs(Same):
    """A projection to q or k whose rotary pairs lie side by side, as Meta writes them; ours lie half a head apart.

    Rows (H, D/2, 2) become rows (H, 2, D/2): the same model, since q·k does not mind the order of widths.
    """

    def forth(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """Pairs apart."""
        return pairs_apart(tensor, _head_width(config))

    def back(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """Pairs side by side."""
        return tensor.unflatten(0, (-1, 2, _head_width(config) // 2)).transpose(1, 2).reshape(tensor.shape)


class RotaryPairsTransposed(RotaryPairs):
    """`RotaryPairs` of a matrix stored (in, out)."""

    def forth(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """Transposed, then apart."""
        return super().forth(tensor.t(), config)

    def back(self, tensor: Tensor, config: ModelConfig) -> Tensor:
        """Side by side, then transposed."""
        return super().back(tensor, config).t()


def pairs_apart(tensor: Tensor, head_width: int) -> Tensor:
    """A projection's rows (or its bias), whose rotary pairs lie side by side, with the pairs half a head apart."""
    return tensor.unflatten(0, (-1, head_width // 2, 2)).transpose(1, 2).reshape(tensor.shape)


def _head_width(config: ModelConfig) -> int:
    return config.stacks[-1].attention_of(0).head_width(config.d_model)


def kv_heads(config: ModelConfig) -> int:
    """How many groups of q, k and v a tensor interleaved head by head has: one for each key/value head."""
    return config.stacks[-1].attention_of(0).kv_heads


@dataclass(frozen=True)
class Split(WeightRow):
    """One foreign tensor that holds several of ours, one after another, each of its own size.

    transposed: it is stored (in, out). groups: its parts are interleaved, so many times over: BLOOM and NeoX store
    (head, q k v), Falcon (group, q…q k v); `kv_heads` counts them.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    groups: Callable[[ModelConfig], int] | None = None

    def split(self, tensor: Tensor, like: tuple[Tensor, ...], config: ModelConfig) -> tuple[Tensor, ...]:
        """Cut into our sizes."""
        if self.transposed and tensor.ndim == 2:
            tensor = tensor.t()
        sizes = [part.shape[0] for part in like]
        if self.groups is None:
            return tuple(tensor.split(sizes))
        groups = self.groups(config)
        grouped = tensor.unflatten(0, (groups, -1)).split([size // groups for size in sizes], dim=1)
        return tuple(part.flatten(0, 1) for part in grouped)

    def shape(self, tensors: tuple[Tensor, ...], config: ModelConfig) -> tuple[int, ...]:
        """All rows together. (`torch.cat` on the meta device would import torch's compiler: two seconds.)"""
        whole = (sum(tensor.shape[0] for tensor in tensors), *tensors[0].shape[1:])
        return whole[::-1] if self.transposed and len(whole) == 2 else whole

    def join(self, tensors: tuple[Tensor, ...], config: ModelConfig) -> Tensor:
        """Put together again."""
        if self.groups is None:
            whole = torch.cat(tensors)
        else:
            groups = self.groups(config)
            whole = torch.cat([part.unflatten(0, (groups, -1)) for part in tensors], dim=1).flatten(0, 1)
        return whole.t() if self.transposed and whole.ndim == 2 else whole


class Stacked(Same):
    """One tensor of ours that is stored in pieces along its first axis, such as a norm for each head."""

    def names(self, tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
        """One for each piece."""
        return tuple(self.theirs.replace(PIECE, str(number)) for number in range(tensors[0].shape[0]))

    def shape(self, tensors: tuple[Tensor, ...], config: ModelConfig) -> tuple[int, ...]:
        """A piece's."""
        return tuple(tensors[0].shape[1:])

    def gather(self, pieces: tuple[Tensor, ...], like: tuple[Tensor, ...], config: ModelConfig) -> tuple[Tensor, ...]:
        """All pieces, stacked."""
        return (torch.stack(pieces),)

    def piece(self, number: int, tensors: tuple[Tensor, ...], config: ModelConfig) -> Tensor:
        """The piece of this number."""
        return tensors[0][number]


@dataclass(frozen=True)
class Copy:
    """A foreign tensor that may be stored beside the one that it is tied to; the two must be equal.

    Where the model does not tie them, the row that reads `theirs` for itself comes first. Where a file has the copy
    alone, it is read in place of `of`. used=False: the original never reads it, but expects it in the file: its
    numbers do not matter, and it is written back as a copy. written: it is, too, though it must be equal.
    """

    theirs: str
    of: str
    used: bool = True
    written: bool = False


@dataclass(frozen=True)
class Fixed:
    """A foreign tensor whose numbers follow from the config (a table of sinusoids): held against them, and never kept.

    shape, make: its shape, and its numbers. written: the original looks for it in the file.
    """

    theirs: str
    shape: Callable[[ModelConfig], tuple[int, ...]]
    make: Callable[[ModelConfig], Tensor]
    written: bool = True


@dataclass(frozen=True)
class IgnoredTensor:
    """Foreign tensors (a name with `{layer}`, or with * at its end) that are no part of the model, and why."""

    pattern: str
    reason: str


@dataclass(frozen=True, init=False)
class When:
    """Rows that hold only where the config passes a test."""

    test: Callable[[ModelConfig], bool]
    rows: tuple[Row, ...]

    def __init__(self, test: Callable[[ModelConfig], bool], *rows: Row) -> None:
        object.__setattr__(self, "test", test)
        object.__setattr__(self, "rows", rows)


Row = WeightRow | Copy | Fixed | IgnoredTensor | When


def with_head(head: type[Head], *rows: Row) -> When:
    """Rows that hold for models with this kind of head."""
    return When(lambda config: isinstance(config.head, head), *rows)


Plain = WeightRow | Copy | Fixed | IgnoredTensor
"""A row without a condition."""


def in_force(table: tuple[Row, ...], config: ModelConfig) -> tuple[Plain, ...]:
    """The rows that hold for this config."""
    rows: list[Plain] = []
    for row in table:
        if isinstance(row, When):
            rows += in_force(row.rows, config) if row.test(config) else ()
        else:
            rows.append(row)
    return tuple(rows)


def both(theirs: str, ours: str, *, row: Callable[[str, str], WeightRow] = Same) -> tuple[WeightRow, WeightRow]:
    """The rows of a layer's `.weight` and `.bias`; the second falls away where the model has no bias."""
    return row(f"{theirs}.weight", f"{ours}.weight"), row(f"{theirs}.bias", f"{ours}.bias")
