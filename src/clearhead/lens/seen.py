"""What was seen. A record of each attention call, and the maps, words and links that are read off it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clearhead.errors import LensError, OutsideError
from clearhead.lens.counting import counted, layers_and_heads, times
from clearhead.lens.index import index, indices
from clearhead.lens.kept.call import KINDS as KINDS
from clearhead.lens.kept.call import Call as Call
from clearhead.lens.kept.call import Kind as Kind
from clearhead.lens.kept.placed import Place
from clearhead.lens.kept.runs import Arrived, Run
from clearhead.lens.maps.attention_map import AttentionMap

if TYPE_CHECKING:
    from clearhead.lens.maps.growing import GrowingMap
from clearhead.lens.maps.receipts import Receipts


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
        self._runs: dict[tuple[Kind, int], list[Run]] = {}

    def record(self, call: Call, arrived: Arrived | None = None) -> None:
        """Add a call; what watches a model calls this. arrived: the keys it came with, by which it finds its run."""
        if arrived is not None:
            self._run(call, arrived)
        self._calls.setdefault((call.kind, call.layer), []).append(call)

    def settle(self) -> None:
        """Nothing more will come; what was held to recognise the next step is let go."""
        for runs in self._runs.values():
            for run in runs[-1:]:
                run.settle()

    def __repr__(self) -> str:
        if not self._calls:
            return "<Seen: nothing yet>"
        n = sum(map(len, self._calls.values()))
        shapes = ", ".join(f"{kind}: {self.shape_of(kind)}" for kind in self.kinds)
        gone = all(call.released for calls in self._calls.values() for call in calls)
        return f"<Seen {counted(n, 'call')}; {shapes}; {'released' if gone else f'{self.nbytes:,} bytes'}>"

    def _repr_html_(self) -> str:
        """A small picture of all heads of the first text, for notebooks."""
        from clearhead.lens.ways_out.notebook import heads_html

        return heads_html(self)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of attention that were seen."""
        return tuple(kind for kind in KINDS if any(key[0] == kind for key in self._calls))

    def n_layers(self, kind: Kind | None = None) -> int:
        """How many layers of this kind there are, up to the last that was seen; `layers` says which were."""
        return 1 + self.layers(kind)[-1]

    def layers(self, kind: Kind | None = None) -> tuple[int, ...]:
        """The layers of this kind that were seen, in order: not all, where `watch` was asked for some."""
        kind = self._kind(kind)
        return tuple(sorted(layer for k, layer in self._calls if k == kind))

    def shape_of(self, kind: Kind) -> str:
        """The layers and heads of this kind that were kept, in words: 6 layers × 12 heads."""
        layers = self.layers(kind)
        first = self._calls[kind, layers[0]][-1]
        return layers_and_heads(layers, len(first.heads), first.n_heads)

    def n_heads(self, kind: Kind | None = None, layer: int | None = None) -> int:
        """How many heads that layer has; the first that was seen, where none is named."""
        kind = self._kind(kind)
        return self.call(self.layers(kind)[0] if layer is None else layer, kind).n_heads

    def n_calls(self, kind: Kind | None = None, layer: int = 0) -> int:
        """How often that layer ran."""
        return len(self._calls.get((self._kind(kind), layer), ()))

    @property
    def nbytes(self) -> int:
        """The bytes of all that is kept; of what calls share, such as an encoder's keys, once."""
        sizes: dict[int, int] = {}
        for x in (x for calls in self._calls.values() for call in calls for x in call.held):
            sizes[x.data_ptr()] = max(x.nbytes, sizes.get(x.data_ptr(), 0))
        return sum(sizes.values())

    def call(self, layer: int, kind: Kind | None = None, call: int = -1) -> Call:
        """One call of one layer."""
        kind = self._kind(kind)
        calls = self._calls.get((kind, index(layer, "a layer")))
        if calls is None:
            raise OutsideError(f"layer {layer} of the {kind} was not seen; choose one of {_spans(self.layers(kind))}.")
        if not -len(calls) <= index(call, "a call") < len(calls):
            raise OutsideError(f"layer {layer} ran {times(len(calls))}; call={call} is outside.")
        return calls[call]

    def map(self, layer: int, head: int, kind: Kind | None = None, *, batch: int = 0, call: int = -1) -> AttentionMap:
        """The map of one head. `kind` may be left out where only one kind was seen. batch: which text of the call;
        call: which of the model's calls in the block, −1 is the last."""
        return self.call(layer, kind, call).map(head, batch)

    def growing(self, layer: int, head: int, kind: Kind | None = None, *, batch: int = 0, run: int = -1) -> GrowingMap:
        """The map of one head over a text as it grew call by call, and still grows: see GrowingMap.

        run: which text, where several were begun; −1 is the last. Each pass from a text's beginning begins one, and
        what reads on with its cache belongs to it. Raises LensError where the text's beginning was not watched, or
        where its keys are not those that went before: beam search orders its texts anew.
        """
        from clearhead.lens.maps.growing import GrowingMap

        call = self.call(layer, kind)
        runs = self._runs.get((call.kind, call.layer), []) or [Run.alone(call)]
        if not -len(runs) <= index(run, "a run") < len(runs):
            raise OutsideError(
                f"layer {layer} of the {call.kind} read {counted(len(runs), 'text')}; run={run} is outside."
            )
        chosen = runs[run]
        if not chosen.whole:
            raise LensError(
                f"layer {layer} of the {call.kind} read on at token {chosen.places[0].start} with other keys than the "
                "calls before had left: they were read before watching, or beam search put its texts in another order; "
                "single steps stand, seen.map(layer, head, call=…). For a map that grows, watch from the beginning and "
                "write with one beam."
            )
        chosen.calls[0].map(head, batch)  # raises where there is no such head or text, or all was released
        return GrowingMap(chosen, head, batch)

    def _run(self, call: Call, arrived: Arrived) -> None:
        """Let the call join the run that it reads on from, or begin one."""
        runs = self._runs.setdefault((call.kind, call.layer), [])
        place, fresh = arrived.place(call), False
        if call.kind == "cross":  # where its queries stand, the decoder's own attention knows, which ran just before
            below = [layer for kind, layer in self._runs if kind == "decoder" and layer <= call.layer]
            own = self._runs["decoder", max(below)] if below else None  # a layer may have none of its own beside it
            fresh = not own or len(own[-1].calls) == 1
            place = Place(own[-1].places[-1].start if own else 0, call.shape[0], 0, arrived.k.shape[2])
        if runs and not fresh and runs[-1].takes(call, arrived, place):
            return
        like: Call | None = None  # which has kept what the encoder says
        if runs:
            if call.kind == "cross" and not runs[-1].calls[0].released and runs[-1].same_memory(arrived):
                like = runs[-1].calls[0]
            runs[-1].settle()
        call.stand_alone(window=arrived.appended, like=like)
        runs.append(Run(call, place))

    def links(
        self, query: Iterable[int], key: Iterable[int], kind: Kind | None = None, *, batch: int = 0, call: int = -1
    ) -> list[Link]:
        """Every head of every layer, ranked by the weight that the query tokens give to the key tokens.

        Summed over the key's tokens, averaged over the query's (Clark et al. 2019, §4.1).
        """
        kind = self._kind(kind)
        rows, cols = torch.tensor(indices(query, "a query")), torch.tensor(indices(key, "a key"))
        found = []
        for layer in self.layers(kind):
            step = self.call(layer, kind, call)
            step.check_batch(batch)
            for tokens, size, word in ((rows, step.shape[0], "query"), (cols, step.shape[1], "key")):
                if len(tokens) == 0 or int(tokens.min()) < 0 or int(tokens.max()) >= size:
                    raise OutsideError(f"{word} tokens {tokens.tolist()} are not in 0…{size - 1}.")
            weights = step.weights(rows, cols, batch).sum(-1).mean(-1)  # (H,)
            found += [
                Link(kind, layer, head, weight) for head, weight in zip(step.heads, weights.tolist(), strict=True)
            ]
        return sorted(found, key=lambda link: -link.weight)

    def verify(
        self, rows: Sequence[int] | None = None, *, atol: float | None = None, batch: int = 0, call: int = -1
    ) -> Receipts:
        """The receipts of every head that was kept, the worst first: see `AttentionMap.verify`."""
        self._kind(self.kinds[0] if self.kinds else None)
        call = index(call, "a call")
        steps = [calls[call] for calls in self._calls.values() if -len(calls) <= call < len(calls)]
        found = [step.map(head, batch).verify(rows, atol=atol) for step in steps for head in step.heads]
        return Receipts(tuple(sorted(found, key=lambda receipt: -receipt.strain)))

    def release(self) -> None:
        """Give all tensors back; maps made from here then raise ReleasedError."""
        self.settle()
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
        if not isinstance(kind, str):
            raise OutsideError(f"a kind is a name, one of {', '.join(kinds)}, and not of type {type(kind).__name__}.")
        if kind not in kinds:
            raise OutsideError(f"no {kind!r} attention was seen; choose one of {', '.join(kinds)}.")
        return kind


def check_layers(wanted: Iterable[int] | None, there: Collection[int]) -> None:
    """Raise OutsideError where a layer was asked for that the model does not have, or that has no attention."""
    for layer in sorted(wanted or ()):
        if layer not in there:
            why = "has no attention of its own" if 0 <= layer < max(there) else "is outside the model"
            whole = len(there) == 1 + max(there)
            choice = f"0…{max(there)}" if whole else f"one of {', '.join(map(str, sorted(there)))}"
            raise OutsideError(f"layer {layer} {why}; choose {choice}.")


def _spans(layers: Sequence[int]) -> str:
    if list(layers) == list(range(len(layers))) and len(layers) > 2:
        return f"0…{layers[-1]}"
    return ", ".join(map(str, layers))
