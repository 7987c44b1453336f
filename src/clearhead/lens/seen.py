"""What was seen. A record of each attention call, and the maps, words and links that are read off it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import LensError, OutsideError, ReleasedError
from clearhead.lens.attention_map import AttentionMap, derive_weights
from clearhead.model.kernels import Scoring

Kind = Literal["encoder", "decoder", "cross"]
"""Which attention: the encoder's or the decoder's own, or the decoder's reading of the encoder."""

KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")


class Call:
    """One call of one layer's attention: q, k and log-sum-exp of all its heads, and how scores were formed."""

    def __init__(
        self,
        q: Float[Tensor, "B H Tq D"],
        k: Float[Tensor, "B Hkv Tk D"],
        lse: Float[Tensor, "B H Tq"],
        scoring: Scoring,
        *,
        kind: Kind,
        layer: int,
        module: str,
    ) -> None:
        self.kind, self.layer, self.module = kind, layer, module
        self.n_heads, self.batch = q.shape[1], q.shape[0]
        self.shape = (q.shape[2], k.shape[2])
        self._kept: tuple[Tensor, Tensor, Tensor] | None = (_own(q), _own(k, step=q.shape[2] == 1), lse.detach())
        self.scoring = scoring.kept()

    @property
    def tensors(self) -> tuple[Float[Tensor, "B H Tq D"], Float[Tensor, "B Hkv Tk D"], Float[Tensor, "B H Tq"]]:
        """q, k and the log-sum-exp. Raises ReleasedError once they were given back."""
        if self._kept is None:
            raise ReleasedError(f"what layer {self.layer} of the {self.kind} kept was released; look again.")
        return self._kept

    @property
    def nbytes(self) -> int:
        """The bytes of q, k and the log-sum-exp."""
        return sum(x.numel() * x.element_size() for x in self._kept or ())

    def map(self, head: int, batch: int = 0) -> AttentionMap:
        """One head's map of one text."""
        q, k, lse = self.tensors
        if not 0 <= head < self.n_heads:
            raise OutsideError(f"head {head} is outside layer {self.layer}; choose 0…{self.n_heads - 1}.")
        self.check_batch(batch)
        shared = head // (q.shape[1] // k.shape[1])
        return AttentionMap(
            q[batch : batch + 1, head : head + 1],
            k[batch : batch + 1, shared : shared + 1],
            lse[batch : batch + 1, head : head + 1],
            self.scoring.of(batch, head),
            name=f"{self.kind} layer {self.layer} head {head}",
            released=lambda: self._kept is None,
        )

    def check_batch(self, batch: int) -> None:
        """Raise OutsideError unless the call had a text of this number."""
        if not 0 <= batch < self.batch:
            raise OutsideError(f"text {batch} is outside the batch of {self.batch}; choose 0…{self.batch - 1}.")

    def weights(self, rows: Int[Tensor, " q"], cols: Int[Tensor, " k"], batch: int = 0) -> Float[Tensor, "H q k"]:
        """The weights of these queries and keys, of every head at once."""
        q, k, lse = (x[batch : batch + 1] for x in self.tensors)
        rows, cols = rows.to(q.device), cols.to(q.device)
        weights = derive_weights(q[:, :, rows], k[:, :, cols], lse[:, :, rows], self.scoring, rows, cols)
        return weights[batch if weights.shape[0] > 1 else 0]

    def release(self) -> None:
        """Give the tensors back; maps of this call then raise ReleasedError."""
        self._kept = None


def _own(x: Tensor, *, step: bool = False) -> Tensor:
    """The tensor alone: a copy where it is a window on something larger that would be kept alive with it.

    step: one new token was read, and k is a window on the growing cache that all steps share; it is not copied.
    """
    x = x.detach()
    larger = x.untyped_storage().nbytes() > 1.05 * x.numel() * x.element_size()
    return x.clone(memory_format=torch.contiguous_format) if larger and not step else x


@dataclass(frozen=True)
class Link:
    """How strongly one head links two places: the weight that query gives to key."""

    kind: Kind
    layer: int
    head: int
    weight: float


class Seen:
    """The attention calls that were watched. `map(layer, head)` gives a head's AttentionMap.

    Where a model was called more than once, `call` chooses: −1, the default, is the last.
    """

    def __init__(self) -> None:
        self._calls: dict[tuple[Kind, int], list[Call]] = {}

    def record(self, call: Call) -> None:
        """Add a call; what watches a model calls this."""
        self._calls.setdefault((call.kind, call.layer), []).append(call)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of attention that were seen."""
        return tuple(kind for kind in KINDS if any(key[0] == kind for key in self._calls))

    def n_layers(self, kind: Kind | None = None) -> int:
        """How many layers of this kind were seen."""
        kind = self._kind(kind)
        return 1 + max(layer for k, layer in self._calls if k == kind)

    def n_heads(self, kind: Kind | None = None, layer: int = 0) -> int:
        """How many heads that layer has."""
        return self.call(layer, kind).n_heads

    def n_calls(self, kind: Kind | None = None, layer: int = 0) -> int:
        """How often that layer ran."""
        return len(self._calls.get((self._kind(kind), layer), ()))

    @property
    def nbytes(self) -> int:
        """The bytes of all that is kept."""
        return sum(call.nbytes for calls in self._calls.values() for call in calls)

    def call(self, layer: int, kind: Kind | None = None, call: int = -1) -> Call:
        """One call of one layer."""
        kind = self._kind(kind)
        calls = self._calls.get((kind, layer))
        if calls is None:
            layers = sorted(number for k, number in self._calls if k == kind)
            raise OutsideError(f"layer {layer} of the {kind} was not seen; choose one of {_spans(layers)}.")
        if not -len(calls) <= call < len(calls):
            raise OutsideError(f"layer {layer} ran {len(calls)} times; call={call} is outside.")
        return calls[call]

    def map(self, layer: int, head: int, kind: Kind | None = None, *, batch: int = 0, call: int = -1) -> AttentionMap:
        """The map of one head. `kind` may be left out where only one kind was seen."""
        return self.call(layer, kind, call).map(head, batch)

    def links(
        self, query: Iterable[int], key: Iterable[int], kind: Kind | None = None, *, batch: int = 0, call: int = -1
    ) -> list[Link]:
        """Every head of every layer, ranked by the weight that the query tokens give to the key tokens.

        Summed over the key's tokens, averaged over the query's (Clark et al. 2019, §4.1).
        """
        kind = self._kind(kind)
        rows, cols = torch.tensor(list(query)), torch.tensor(list(key))
        found = []
        for layer in sorted(number for k, number in self._calls if k == kind):
            step = self.call(layer, kind, call)
            step.check_batch(batch)
            for tokens, size, word in ((rows, step.shape[0], "query"), (cols, step.shape[1], "key")):
                if len(tokens) == 0 or int(tokens.min()) < 0 or int(tokens.max()) >= size:
                    raise OutsideError(f"{word} tokens {tokens.tolist()} are not in 0…{size - 1}.")
            weights = step.weights(rows, cols, batch).sum(-1).mean(-1)  # (H,)
            found += [Link(kind, layer, head, weight) for head, weight in enumerate(weights.tolist())]
        return sorted(found, key=lambda link: -link.weight)

    def release(self) -> None:
        """Give all tensors back; maps made from here then raise ReleasedError."""
        for calls in self._calls.values():
            for call in calls:
                call.release()

    def _kind(self, kind: Kind | None) -> Kind:
        kinds = self.kinds
        if not kinds:
            raise LensError("nothing was seen: call the model inside the `with watch(model)` block first.")
        if kind is None:
            if len(kinds) > 1:
                raise LensError(f"several kinds were seen; say which: kind={' or kind='.join(map(repr, kinds))}.")
            return kinds[0]
        if kind not in kinds:
            raise OutsideError(f"no {kind!r} attention was seen; choose one of {', '.join(kinds)}.")
        return kind


def check_layers(wanted: frozenset[int] | None, n_layers: int) -> None:
    """Raise OutsideError where a layer was asked for that the model does not have."""
    outside = sorted(layer for layer in wanted or () if not 0 <= layer < n_layers)
    if outside:
        raise OutsideError(f"layer {outside[0]} is outside the model; choose from 0…{n_layers - 1}.")


def _spans(layers: list[int]) -> str:
    if layers == list(range(len(layers))) and len(layers) > 2:
        return f"0…{layers[-1]}"
    return ", ".join(map(str, layers))
