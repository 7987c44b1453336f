"""GrowingMap. The map of a text that is being written: a row for each token that was read, more as they come.

It is an AttentionMap over the whole text so far, and is made anew, when somebody looks, from the pieces that the calls
left: the queries and log-sum-exps of all of them, one after the other, and the keys, which their run keeps once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import OutsideError
from clearhead.lens.kept.runs import Run
from clearhead.lens.maps.attention_map import AttentionMap

if TYPE_CHECKING:
    import numpy as np


class GrowingMap(AttentionMap):
    """One head's weights over a text as it grows: `m.shape` has a row more after each step, and so has all else.

    Row i is what token i read when it ran; in self-attention it equals row i of one pass over the text as it is now,
    to rounding. It may be read between steps, from a streamer or from another thread: each question is answered from
    what there is when it is asked. `m.now` is the map as it is, `m.after(step)` as it was; those two grow no more.
    """

    def __init__(self, run: Run, head: int, batch: int) -> None:
        self._run, self._head, self._batch = run, head, batch
        self._latest: tuple[int, AttentionMap] | None = None
        self.words: tuple[Sequence[str], Sequence[str]] | None = None

    @property
    def n_steps(self) -> int:
        """How many calls read the text so far: the first of them its beginning, each other mostly one token."""
        return len(self._run.calls)

    @property
    def now(self) -> AttentionMap:
        """The map of the text as it is."""
        n, latest = self.n_steps, self._latest
        if latest is None or latest[0] != n:
            latest = self._latest = (n, _snapshot(self._run, n - 1, self._head, self._batch))
        latest[1].words = self.words
        return latest[1]

    def after(self, step: int) -> AttentionMap:
        """The map as it was after that call: 0 is the text's beginning, −1 what there is now.

        Raises OutsideError for a step that has not come.
        """
        n = self.n_steps
        if not -n <= step < n:
            raise OutsideError(f"step {step} is outside {self.name}, which has had {n}; choose 0…{n - 1}.")
        return _snapshot(self._run, step % n, self._head, self._batch)

    def steps(self) -> Iterator[AttentionMap]:
        """The map after each of the steps that there are now, from the first."""
        return (self.after(step) for step in range(self.n_steps))

    def __repr__(self) -> str:
        now, n = self.now, self.n_steps
        steps = f"{n} step" + "s" * (n != 1)
        return f"<GrowingMap {now.name}: {now.shape[0]} queries × {now.shape[1]} keys after {steps}, derived on demand>"

    def __len__(self) -> int:
        return len(self.now)

    def __iter__(self) -> Iterator[Float[Tensor, " Tk"]]:
        return iter(self.now)

    def __getitem__(self, index: object) -> Float[Tensor, "*shape"]:
        return self.now[index]

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> np.ndarray:
        return self.now.__array__(dtype, copy)

    def __getattr__(self, name: str) -> Any:
        """What a map holds (`shape`, `name` …), asked of the map as it is."""
        if name.startswith("__") or "_run" not in vars(self) or hasattr(GrowingMap, name):
            raise AttributeError(name)  # of a copy that is being made, or from within
        return getattr(self.now, name)


def _of_now(name: str) -> Any:
    """A method or property of AttentionMap that is asked of one snapshot from beginning to end."""
    member = getattr(AttentionMap, name)
    if isinstance(member, property):
        return property(lambda self: getattr(self.now, name), doc=member.__doc__)

    @wraps(member)
    def asked(self: GrowingMap, *args: Any, **more: Any) -> Any:
        return getattr(self.now, name)(*args, **more)

    return asked


for _name, _member in list(vars(AttentionMap).items()):
    if (
        not _name.startswith("__")
        and _name not in vars(GrowingMap)
        and (callable(_member) or isinstance(_member, property))
    ):
        setattr(GrowingMap, _name, _of_now(_name))


def _snapshot(run: Run, number: int, head: int, batch: int) -> AttentionMap:
    """The map of one head of one text after that call of its run."""
    base, pieces = run.calls[0], run.pieces(number)
    queries, lses, outs = [], [], []
    for c, a, b in pieces:
        q, lse, out = run.calls[c].rows_of(head, batch)
        queries.append(q[:, :, a:b].to(lse.device))
        lses.append(lse[:, :, a:b])
        outs += [out[:, :, a:b].to(lse.device)] if out is not None else []
    return AttentionMap(
        _one(queries),
        run.head_keys(number, head, batch),
        _one(lses),
        replace(base.scoring.of(batch, head), mask=run.mask(number, batch, head)),
        name=f"{base.kind} layer {base.layer} head {head}",
        released=lambda: base.released,
        ran_in=base.ran_in,
        settle=(lambda _: None) if base.rounded else None,  # it is done already
        v=run.head_values(number, head, batch) if len(outs) == len(pieces) else None,
        out=_one(outs) if len(outs) == len(pieces) else None,
    )


def _one(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
