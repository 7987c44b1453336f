"""The transfer: a table of weight rows put to work, from a file's tensors to a model's and back.

Everything is settled on names and shapes first, by a plan, and only then is a tensor read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clearhead.checkpoint.family import Family
from clearhead.checkpoint.report import Account
from clearhead.checkpoint.rules import PIECE, Copy, Fixed, IgnoredTensor, Plain, Row, WeightRow, in_force
from clearhead.errors import CheckpointError, UnknownKeyError
from clearhead.model.config import ModelConfig

LAYER = "{layer}"


@runtime_checkable
class Tensors(Protocol):
    """Where foreign tensors come from: a folder of safetensors, an archive of arrays."""

    where: str

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape."""

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's dtype. Raises CheckpointError for one that is no weight's."""

    def read(self, name: str) -> Tensor:
        """The tensor, without a copy where that can be had."""

    def release(self, name: str) -> None:
        """Give back what reading it took, where another can have it; a view that was given out stays as it is."""


@dataclass(frozen=True)
class Step:
    """One tensor of theirs (or the pieces of one), and those of ours that it holds."""

    row: WeightRow
    theirs: tuple[str, ...]
    ours: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be read, what of ours is to be drawn anew, and what became of each foreign tensor."""

    steps: tuple[Step, ...]
    fresh: tuple[str, ...]
    accounts: tuple[Account, ...]


@dataclass(frozen=True)
class NamedEvidence:
    """What a family asks of the weights, under its own names for them."""

    family: Family
    tensors: Tensors

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return self._actual(name) is not None

    def same(self, one: str, other: str) -> bool:
        """Whether the two hold the same bits."""
        first, second = self._actual(one), self._actual(other)
        return first is not None and second is not None and _same_bits(self.tensors, first, second)

    def _actual(self, name: str) -> str | None:
        for actual in (name, self.family.prefix + name):
            if actual in self.tensors.shapes:
                return actual
        return next((actual for actual in self.tensors.shapes if self.family.canonical(actual) == name), None)


def plan_reading(
    family: Family,
    config: ModelConfig,
    ours: Mapping[str, Tensor],
    tensors: Tensors,
    *,
    new_head: bool = False,
) -> Plan:
    """How the tensors fill `ours` (names and meta tensors of the model). new_head: the head may be drawn anew.

    Raises CheckpointError for tensors that are missing, of another shape, or unequal where they are tied;
    UnknownKeyError for tensors that no row accounts for.
    """
    names: dict[str, str] = {}
    for name in tensors.shapes:
        canonical = family.canonical(name)
        if canonical in names:
            raise CheckpointError(f"{tensors.where}: {names[canonical]} and {name} are the same tensor; remove one.")
        names[canonical] = name
    rows = in_force((*family.weights, *family.heads), config)
    steps, left = _steps(rows, config, ours)
    if not new_head or not all(map(_of_head, left)):
        _all_have_a_place(left)
    fates: dict[str, Account] = {}
    settled = {name for step in steps for name in step.theirs} | (set(_theirs(family.heads)) if new_head else set())
    _settle_copies(rows, config, settled, names, tensors, fates)
    _settle_fixed(rows, config, names, tensors, fates)

    kept: list[Step] = []
    missing: list[str] = []
    fresh = sorted(left)
    for step in steps:
        actual = tuple(names[name] for name in step.theirs if name in names)
        if len(actual) == len(step.theirs):
            for name in actual:
                _check_shape(step, name, config, ours, tensors)
                fates[name] = Account(name, "read", ", ".join(step.ours))
            kept.append(Step(step.row, actual, step.ours))
        elif new_head and all(map(_of_head, step.ours)):
            fresh += step.ours
        else:
            missing += [name for name in step.theirs if name not in names]
    if missing:
        raise CheckpointError(f"{tensors.where} lacks {_listed(missing)}, which the config asks for.")
    _ignore(rows, family, new_head, names, fates)
    unknown = [name for name in tensors.shapes if name not in fates]
    if unknown:
        raise UnknownKeyError(
            f"{tensors.where}: family {family.model_type} does not account for {_listed(unknown)} under this config; "
            "correct the config, or remove what is no part of the model."
        )
    return Plan(tuple(kept), tuple(fresh), tuple(fates[name] for name in tensors.shapes))


def _layers(config: ModelConfig) -> int:
    return max(stack.n_layers for stack in config.stacks)


def _steps(rows: tuple[Plain, ...], config: ModelConfig, ours: Mapping[str, Tensor]) -> tuple[list[Step], set[str]]:
    """The rows, layer by layer, whose tensors of ours the model has; and the tensors for which there is no row."""
    steps: list[Step] = []
    left = set(ours)
    for row in rows:
        if not isinstance(row, WeightRow):
            continue
        for layer in range(_layers(config) if LAYER in row.ours[0] else 1):
            mine = tuple(name.replace(LAYER, str(layer)) for name in row.ours)
            if left.issuperset(mine):
                theirs = row.names(tuple(ours[name] for name in mine))
                steps.append(Step(row, tuple(name.replace(LAYER, str(layer)) for name in theirs), mine))
                left.difference_update(mine)
    return steps, left


def _of_head(name: str) -> bool:
    return name.startswith(("head.", "pooler."))


def _all_have_a_place(left: set[str]) -> None:
    if left:
        raise CheckpointError(f"the family has no place for {_listed(sorted(left))}; leave that part out of the model.")


def _copies(rows: tuple[Plain, ...], config: ModelConfig) -> Iterator[Copy]:
    for row in rows:
        if isinstance(row, Copy):
            for layer in range(_layers(config) if LAYER in row.theirs else 1):
                theirs, of = (name.replace(LAYER, str(layer)) for name in (row.theirs, row.of))
                yield replace(row, theirs=theirs, of=of)


def _settle_copies(
    rows: tuple[Plain, ...],
    config: ModelConfig,
    claimed: set[str],
    names: dict[str, str],
    tensors: Tensors,
    fates: dict[str, Account],
) -> None:
    """See to the tensors that are stored a second time; where only the second is there, it takes the first's name."""
    for copy in _copies(rows, config):
        if copy.theirs in claimed or copy.theirs not in names:
            continue
        theirs = names.pop(copy.theirs)
        if copy.of not in names:
            names[copy.of] = theirs
        elif not copy.used:
            fates[theirs] = Account(theirs, "ignored", f"never used beside {names[copy.of]}, which is")
        elif _same_bits(tensors, theirs, names[copy.of]):
            fates[theirs] = Account(theirs, "read", f"equal to {names[copy.of]}, to which it is tied")
        else:
            raise CheckpointError(
                f"{tensors.where}: {theirs} and {names[copy.of]} are tied by the config and differ in the file; "
                "say in config.json that they are not tied, or remove one."
            )


def _settle_fixed(
    rows: tuple[Plain, ...], config: ModelConfig, names: dict[str, str], tensors: Tensors, fates: dict[str, Account]
) -> None:
    """See to the tensors that follow from the config: they must be what they are here, to a rounding."""
    for row in rows:
        actual = names.get(row.theirs) if isinstance(row, Fixed) else None
        if actual is None:
            continue
        assert isinstance(row, Fixed)
        expected, found = row.shape(config), tensors.shapes[actual]
        if expected != found:
            raise CheckpointError(
                f"{tensors.where}: {actual} has the shape {found}, and the config asks for {expected}."
            )
        nearly = max(1e-3, 2 * torch.finfo(tensors.dtype(actual)).eps)
        stored = tensors.read(actual)
        if not torch.allclose(stored.float(), row.make(config).to(stored.dtype).float(), rtol=0.0, atol=nearly):
            raise CheckpointError(
                f"{tensors.where}: {actual} holds other numbers than its model_type stands for, and no others are run; "
                "restore the original file."
            )
        tensors.release(actual)
        fates[actual] = Account(actual, "ignored", "worked out from the config, with the same numbers")


def _ignore(
    rows: tuple[Plain, ...],
    family: Family,
    new_head: bool,
    names: Mapping[str, str],
    fates: dict[str, Account],
) -> None:
    """Account for what the table ignores, and for the old head's tensors where the head is another."""
    patterns = [(_pattern(row.pattern), row.reason) for row in rows if isinstance(row, IgnoredTensor)]
    if new_head:
        reason = "it belongs to the checkpoint's own head, and another was asked for"
        patterns += [(_pattern(name), reason) for name in _theirs(family.heads)]
        patterns.append((_pattern("pooler.*"), reason))
    for canonical, actual in names.items():
        if actual not in fates:
            for pattern, reason in patterns:
                if pattern.fullmatch(canonical):
                    fates[actual] = Account(actual, "ignored", reason)
                    break


def _theirs(rows: tuple[Row, ...]) -> Iterator[str]:
    """Every foreign name that a table has, whatever the config."""
    for row in rows:
        match row:
            case WeightRow() | Copy() | Fixed():
                yield row.theirs
            case IgnoredTensor():
                yield row.pattern
            case _:
                yield from _theirs(row.rows)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(
        re.escape(name).replace(re.escape(LAYER), r"\d+").replace(re.escape(PIECE), r"\d+").replace(r"\*", r"[\w.]*")
    )


def _check_shape(step: Step, actual: str, config: ModelConfig, ours: Mapping[str, Tensor], tensors: Tensors) -> None:
    expected = step.row.shape(tuple(ours[name] for name in step.ours), config)
    found = tensors.shapes[actual]
    if expected != found:
        raise CheckpointError(f"{tensors.where}: {actual} has the shape {found}, and the config asks for {expected}.")
    tensors.dtype(actual)


def _same_bits(tensors: Tensors, one: str, other: str) -> bool:
    if tensors.shapes[one] != tensors.shapes[other] or tensors.dtype(one) != tensors.dtype(other):
        return False
    first, second = (tensors.read(name).contiguous().flatten().view(torch.uint8) for name in (one, other))
    same = torch.equal(first, second)
    for name in (one, other):
        tensors.release(name)
    return same


def _listed(names: list[str]) -> str:
    few = ", ".join(names[:3])
    return f"the tensor {few}" if len(names) == 1 else f"{len(names)} tensors ({few}{', …' if len(names) > 3 else ''})"


def read(plan: Plan, config: ModelConfig, ours: Mapping[str, Tensor], tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, one by one, by the plan: views of the file's memory wherever the numbers lie in our order."""
    for step in plan.steps:
        like = tuple(ours[name] for name in step.ours)
        pieces = tuple(tensors.read(name) for name in step.theirs)
        yield from zip(step.ours, step.row.gather(pieces, like, config), strict=True)
        for name in step.theirs:
            tensors.release(name)


@dataclass(frozen=True)
class Outgoing:
    """A tensor to be written: its name, shape and dtype now, its numbers when they are asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


def plan_writing(family: Family, config: ModelConfig, ours: Mapping[str, Tensor], *, prefixed: bool) -> list[Outgoing]:
    """The foreign tensors of a model. prefixed: the base model's names get the family's prefix, beside a head."""
    rows = in_force((*family.weights, *family.heads), config)
    unprefixed = set(_theirs(family.heads))
    written: dict[str, Outgoing] = {}
    steps, left = _steps(rows, config, ours)
    _all_have_a_place(left)
    for step in steps:
        parts = tuple(ours[name].detach() for name in step.ours)
        bare = not prefixed or step.row.theirs in unprefixed
        shape = step.row.shape(parts, config)
        for number, theirs in enumerate(step.theirs):
            name = theirs if bare else family.prefix + theirs
            make = partial(step.row.piece, number, parts, config)
            written[theirs] = Outgoing(name, shape, parts[0].dtype, make)
    for copy in _copies(rows, config):
        if (copy.written or not copy.used) and copy.theirs not in written:
            bare = not prefixed or copy.theirs in unprefixed
            written[copy.theirs] = replace(written[copy.of], name=copy.theirs if bare else family.prefix + copy.theirs)
    dtype = next(iter(ours.values())).dtype
    for row in rows:
        if isinstance(row, Fixed) and row.written:
            name = family.prefix + row.theirs if prefixed else row.theirs
            written[row.theirs] = Outgoing(name, row.shape(config), dtype, partial(_made, row, config, dtype))
    return list(written.values())


def _made(row: Fixed, config: ModelConfig, dtype: torch.dtype) -> Tensor:
    return row.make(config).to(dtype)
