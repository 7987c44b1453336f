"""Silencing. What would the model do without this head? Its output is zero, or what it gives on average.

Zero takes more away than what the head says here: later layers may count on its usual output. The mean over reference
texts keeps that and takes only what is particular to this text (Wang et al. 2022, §2.1; Michel et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clearhead.errors import InputError
from clearhead.lens.places import Place
from clearhead.lens.seen import Kind
from clearhead.lens.whatif.edited import edited, heads_at, widths_of
from clearhead.model.kernels import K, Kernel, Out, Q, Scoring, V


@dataclass(frozen=True, eq=False)
class Means:
    """The mean output of every head over all tokens of reference texts; `over` makes one."""

    vectors: Mapping[Place, Float[Tensor, "H Dv"]]

    @classmethod
    def over(cls, model: nn.Module, runs: Iterable[Callable[[], object]]) -> Means:
        """Call each of `runs`, which reads a text without padding with the model, and take the mean of what heads give.

        A part of the model that none of them ran, as a decoder where encoders alone read, has no mean. Raises
        InputError where none of them ran the model.
        """
        runs = list(runs) if isinstance(runs, Iterable) else [runs]
        if not all(callable(run) for run in runs):
            raise InputError("what is run are functions without arguments, such as [lambda: model(ids)].")
        sums = {place: _Sum() for place in widths_of(model)}
        with torch.no_grad(), edited(model, sums, must_run=False):
            for run in runs:
                run()
        found = {place: each.mean() for place, each in sums.items() if each.count}
        if not found:
            raise InputError("no reference text was read; give at least one to take the mean over.")
        return cls(found)


How = Literal["zero"] | Means
"""What a silenced head gives: nothing, or its mean."""


@contextmanager
def silence(
    model: nn.Module, heads: Iterable[tuple[int, int]], *, how: How = "zero", kind: Kind | None = None
) -> Iterator[None]:
    """The model without these heads, while the block lasts: `with silence(model, [(5, 11)]): model(ids)`.

    model: one of ours, or a transformers model.
    heads: pairs of layer and head, from 0. how: "zero", or `Means.over(…)`, each head's mean. kind: which attention,
    in an encoder-decoder. `watch` inside or outside sees what a silenced head would have read. The model is put back
    however the block ends; another thread that would silence or look at it waits, and one that runs it has every head
    (of a transformers model to rounding, and without `output_attentions`). Raises LensError, when the block ends, where
    a transformers model ran and a layer that was named did not.
    """
    if how != "zero" and not isinstance(how, Means):
        raise InputError(f"how={how!r} is not a choice; choose 'zero', or the means that Means.over(...) gives.")
    with edited(model, silencing(model, heads, how, kind)):
        yield


def silencing(
    model: nn.Module, heads: Iterable[tuple[int, int]], how: How, kind: Kind | None = None
) -> dict[Place, Silenced]:
    """The edit at each place that silences these heads."""
    widths = widths_of(model)
    device = next(model.parameters()).device
    found: dict[Place, Silenced] = {}
    for place, chosen in heads_at(widths, heads, kind).items():
        if isinstance(how, Means) and place not in how.vectors:
            raise InputError(
                f"layer {place[1]} of the {place[0]} did not run in the reference texts, so that it has no mean; run "
                "the whole model over them."
            )
        gone = torch.zeros(1, widths[place], dtype=torch.bool, device=device)
        gone[:, list(chosen)] = True
        found[place] = Silenced(gone, how.vectors[place] if isinstance(how, Means) else None)
    return found


@dataclass(frozen=True, eq=False)
class Silenced:
    """Heads whose output is replaced. gone: which, row by row of the batch, or for all rows alike."""

    gone: Bool[Tensor, "#B H"]
    means: Float[Tensor, "H Dv"] | None = None
    hidden: None = None

    def __call__(self, kernel: Kernel, q: Q, k: K, v: V, scoring: Scoring, dropout: float) -> Out:
        out = kernel(q, k, v, scoring, dropout=dropout)
        gone = self.gone[:, :, None, None].to(out.device)
        if self.means is None:
            return out.masked_fill(gone, 0.0)
        return torch.where(gone, self.means.to(out)[None, :, None], out)


class _Sum:
    """Changes nothing, and adds up what the heads give."""

    hidden: None = None

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def __call__(self, kernel: Kernel, q: Q, k: K, v: V, scoring: Scoring, dropout: float) -> Out:
        out = kernel(q, k, v, scoring, dropout=dropout)
        part = out.detach().double().sum(dim=(0, 2))  # (H, Dv)
        self.total = part if self.total is None else self.total + part
        self.count += out.shape[0] * out.shape[2]
        return out

    def mean(self) -> Float[Tensor, "H Dv"]:
        assert self.total is not None
        return self.total / self.count
