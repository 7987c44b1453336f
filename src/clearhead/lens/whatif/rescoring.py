"""Rescoring. Other ways from one q and k to scores: a key deleted, an edge cut, another temperature, no √d, no mask.

Each is a function from a `Scoring` to another. On one head's map it is exact from what was kept (`layer.py`); as a
kernel it runs inside the model, and what follows downstream is seen (`rerun.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.errors import InputError
from clearhead.lens.given import sort_of
from clearhead.model.kernels import Scoring
from clearhead.model.masks import Bias, Causal, Documents, KeyPadding, Mask, Prefix, Rule, Window

Heads = Bool[Tensor, " H"] | None
"""Which heads of a layer; None is all of them."""

RULES: dict[str, type[Rule]] = {
    "causal": Causal,
    "window": Window,
    "prefix": Prefix,
    "padding": KeyPadding,
    "documents": Documents,
}
"""The rules of a mask that can be dropped, by name."""

ORDER = ("causal", "window", "prefix")
"""The rules about who comes before whom: dropping the mask drops these. Padding and other texts stay unread."""


def shown(indices: Sequence[int]) -> str:
    """A list of positions, the first few of them."""
    return ", ".join(map(str, indices[:5])) + (" …" if len(indices) > 5 else "")


class Rescoring(ABC):
    """Another way from q and k to scores. by_head: whether one kernel call can do it for some heads of a layer."""

    by_head = True

    @property
    @abstractmethod
    def words(self) -> str:
        """What it does, in a few words."""

    @abstractmethod
    def of(self, scoring: Scoring, heads: Heads = None) -> Scoring:
        """The scoring that does it, in these heads. Raises InputError where there is nothing to change."""


def check_rescoring(change: object) -> None:
    """Raise InputError for what is no other way to scores."""
    if not isinstance(change, Rescoring):
        thing = repr(change) if isinstance(change, str) else sort_of(change)
        raise InputError(
            f"{thing} is no way from q and k to scores; give AtTemperature(2.0), WithoutMask(), WithoutScale() or "
            "WithoutSinks()."
        )


@dataclass(frozen=True)
class WithoutKeys(Rescoring):
    """No query may read these keys; the others share the weight."""

    keys: Sequence[int]

    @property
    def words(self) -> str:
        return f"without key{'s' if len(self.keys) > 1 else ''} {shown(self.keys)}"

    def of(self, scoring: Scoring, heads: Heads = None) -> Scoring:
        return replace(scoring, mask=scoring.mask.and_(Unread(torch.tensor(self.keys), None, heads)))


@dataclass(frozen=True)
class WithoutEdges(Rescoring):
    """These queries may not read these keys; the others share the weight."""

    queries: Sequence[int]
    keys: Sequence[int]

    @property
    def words(self) -> str:
        return f"{shown(self.queries)} not reading {shown(self.keys)}"

    def of(self, scoring: Scoring, heads: Heads = None) -> Scoring:
        cut = Unread(torch.tensor(self.keys), torch.tensor(self.queries), heads)
        return replace(scoring, mask=scoring.mask.and_(cut))


@dataclass(frozen=True)
class WithoutSinks(Rescoring):
    """The learned logits that take weight and give no value are gone (gpt-oss)."""

    words = "without sinks"

    def of(self, scoring: Scoring, heads: Heads = None) -> Scoring:
        if scoring.sinks is None:
            raise InputError("there is no learned sink here; where the first token serves as one, delete that instead.")
        if heads is None:
            return replace(scoring, sinks=None)
        lowest = torch.finfo(scoring.sinks.dtype).min / 2
        return replace(scoring, sinks=scoring.sinks.masked_fill(heads.to(scoring.sinks.device), lowest))


@dataclass(frozen=True)
class AtTemperature(Rescoring):
    """softmax(scores / temperature), bias and sinks included: below 1 sharper, above 1 flatter."""

    temperature: float
    by_head = False

    @property
    def words(self) -> str:
        return f"at temperature {self.temperature:g}"

    def __post_init__(self) -> None:
        t = self.temperature
        if isinstance(t, bool) or not isinstance(t, int | float) or not 0 < t < math.inf:
            raise InputError(f"a temperature of {t!r} is none; give a number above 0, such as 0.5.")

    def of(self, scoring: Scoring, heads: Heads = None) -> Scoring:
        assert heads is None
        t, mask = self.temperature, scoring.mask
        return replace(
            scoring,
            scale=scoring.scale / t,
            mask=Mask(mask.rules, tuple(Shrunk(bias, 1 / t) for bias in mask.biases), mask.offset),
            softcap=None if scoring.softcap is None else scoring.softcap / t,  # c/t·tanh((s/t)/(c/t)) = c·tanh(s/c)/t
            sinks=None if scoring.sinks is None else scoring.sinks / t,
        )


@dataclass(frozen=True)
class WithoutScale(Rescoring):
    """q·k as it is, not divided by √d (Vaswani et al. 2017, §3.2.1, say why it is)."""

    by_head = False
    words = "without √d"

    def of(self, scoring: Scoring, heads: Heads = None) -> Scoring:
        assert heads is None
        if scoring.scale == 1.0:
            raise InputError("this attention does not divide by √d: its scale is 1 already.")
        return replace(scoring, scale=1.0)


@dataclass(frozen=True)
class WithoutMask(Rescoring):
    """These rules are dropped, by name; by default those of order: every query reads both ways, but no padding."""

    rules: Sequence[str] = ORDER

    @property
    def words(self) -> str:
        return "without its mask" if tuple(self.rules) == ORDER else f"without {' and '.join(self.rules)}"

    def __post_init__(self) -> None:
        unknown = [name for name in self.rules if name not in RULES]
        if unknown or isinstance(self.rules, str):
            name = unknown[0] if unknown else self.rules
            raise InputError(f"{name!r} is no rule's name; give a list of {', '.join(map(repr, RULES))}.")

    def of(self, scoring: Scoring, heads: Heads = None) -> Scoring:
        mask, kinds = scoring.mask, tuple(RULES[name] for name in self.rules)
        if not any(isinstance(rule, kinds) for rule in mask.rules):
            names = {kind: name for name, kind in RULES.items()}
            there = ", ".join(names.get(type(rule), "one that is written out") for rule in mask.rules)
            raise InputError(
                f"there is no rule {' or '.join(map(repr, self.rules))} here to drop; this attention's rules: "
                f"{there or 'none, it reads everything'}."
            )
        left: list[Rule] = []
        for rule in mask.rules:
            if not isinstance(rule, kinds):
                left.append(rule)
            elif heads is not None:
                left.append(Lifted(rule, heads))
        return replace(scoring, mask=Mask(tuple(left), mask.biases, mask.offset))


# ── the rules and biases that they are made of ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Unread(Rule):
    """These keys are not read, by these queries (None: by any), in these heads (None: in all)."""

    keys: Int[Tensor, " n"]
    queries: Int[Tensor, " m"] | None = None
    heads: Heads = None

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "1 #H q k"]:
        cut = torch.isin(j, self.keys.to(j.device))[None, :].expand(len(i), -1)
        if self.queries is not None:
            cut = cut & torch.isin(i, self.queries.to(i.device))[:, None]
        if self.heads is None:
            return ~cut[None, None]
        return ~(cut[None, None] & self.heads.to(j.device)[None, :, None, None])

    def of(self, batch: int, head: int) -> Unread:
        return self if self.heads is None else replace(self, heads=self.heads[head : head + 1])

    @property
    def per_head(self) -> bool:
        return self.heads is not None


@dataclass(frozen=True, eq=False)
class Lifted(Rule):
    """A rule that does not bind these heads."""

    rule: Rule
    heads: Bool[Tensor, " H"]

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "#B H q k"]:
        return self.rule.allows(i, j) | self.heads.to(j.device)[None, :, None, None]

    def of(self, batch: int, head: int) -> Lifted:
        return Lifted(self.rule.of(batch, head), self.heads[head : head + 1])

    def kept(self) -> Lifted:
        return replace(self, rule=self.rule.kept())

    @property
    def per_head(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class Shrunk(Bias):
    """A bias times a number."""

    bias: Bias
    factor: float

    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "#B #H #q k"]:
        return self.bias.add(i, j) * self.factor

    def of(self, batch: int, head: int) -> Shrunk:
        return replace(self, bias=self.bias.of(batch, head))

    def kept(self) -> Shrunk:
        return replace(self, bias=self.bias.kept())

    @property
    def needs_grad(self) -> bool:
        return self.bias.needs_grad
