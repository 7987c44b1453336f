"""Links. The strongest weights of a layer's heads, found tile by tile, and what is left out of such a list, and why.

A list of the strongest weights alone would be a list of places where heads rest: a word on itself, everything on
[CLS], [SEP] or a decoder's first token (Clark et al. 2019, §3; Xiao et al. 2023). They are left out unless asked for,
and whoever prints the list prints `LeftOut.sentence()` under it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.lens.look import Look
from clearhead.lens.seen import Call, Kind

ROWS, COLS = 128, 1024
"""The tile, of all heads at once, that the search works in."""


class Found(NamedTuple):
    """A link: in this head, token `query` gives `weight` to token `key`."""

    kind: Kind
    layer: int
    head: int
    query: int
    key: int
    weight: float


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Which links are not listed: those from or to these tokens, and, with `itself`, a token's with itself."""

    queries: Bool[Tensor, " Tq"]
    keys: Bool[Tensor, " Tk"]
    itself: bool
    special: tuple[str, ...] = ()
    first: str | None = None

    @classmethod
    def of(cls, seen: Look, kind: Kind, *, nothing: bool = False) -> LeftOut:
        """What is usually left out of a list of this kind's links; `nothing` leaves nothing out."""
        rows, cols = seen.sides(kind)
        reads_target = seen.target is not None and kind != "encoder"
        row_offsets = seen.target_offsets if reads_target else seen.offsets
        col_offsets = seen.target_offsets if reads_target and kind == "decoder" else seen.offsets
        if nothing:
            return cls(torch.zeros(len(rows), dtype=torch.bool), torch.zeros(len(cols), dtype=torch.bool), False)
        queries = torch.tensor([start == end for start, end in row_offsets])
        keys = torch.tensor([start == end for start, end in col_offsets])
        special = dict.fromkeys(
            [word for word, out in zip(rows, queries.tolist(), strict=True) if out]
            + [word for word, out in zip(cols, keys.tolist(), strict=True) if out]
        )
        first = None
        if kind == "decoder" and not keys[0]:
            first = cols[0]
            keys[0] = True
        return cls(queries, keys, kind != "cross", tuple(special), first)

    def sentence(self) -> str | None:
        """What is left out, in words; None where nothing is."""
        parts = []
        if self.special:
            parts.append(f"links from and to {' '.join(self.special)}")
        if self.first is not None:
            parts.append(f"links to the first token ({self.first.strip()}), where decoders rest")
        if self.itself:
            parts.append("a token's link to itself")
        return f"Left out: {'; '.join(parts)}. --all-links lists them too." if parts else None


def strongest(call: Call, heads: Iterable[int], out: LeftOut, top: int) -> dict[int, list[Found]]:
    """The `top` strongest links of each of these heads, strongest first. No T×T tensor is made."""
    wanted = torch.tensor(list(heads))
    tq, tk = call.shape
    best = torch.zeros(len(wanted), 0)
    cells = torch.zeros(len(wanted), 0, dtype=torch.long)
    for low in range(0, tq, ROWS):
        rows = range(low, min(tq, low + ROWS))
        reach = call.scoring.mask.reach(rows, tk)
        for left in range(reach.start, reach.stop, COLS):
            i = torch.arange(rows.start, rows.stop)
            j = torch.arange(left, min(reach.stop, left + COLS))
            tile = _listed(call.weights(i, j).cpu()[wanted], i, j, out)  # (heads, rows, cols)
            values, flat = tile.flatten(1).topk(min(top, tile[0].numel()))
            best = torch.cat((best, values), dim=1)
            cells = torch.cat((cells, i[flat // len(j)] * tk + j[flat % len(j)]), dim=1)
            best, kept = best.topk(min(top, best.shape[1]))
            cells = cells.gather(1, kept)
    return {
        head: [
            Found(call.kind, call.layer, head, cell // tk, cell % tk, weight)
            for cell, weight in zip(places, weights, strict=True)
            if weight > 0
        ]
        for head, places, weights in zip(wanted.tolist(), cells.tolist(), best.tolist(), strict=True)
    }


def best_of_layer(seen: Look, kind: Kind, layer: int, out: LeftOut, top: int) -> list[Found]:
    """The strongest links of a layer, whichever head they are of."""
    found = strongest(seen.seen.call(layer, kind), range(seen.n_heads(kind, layer)), out, top)
    return sorted((link for links in found.values() for link in links), key=lambda link: -link.weight)[:top]


def _listed(
    tile: Float[Tensor, "H q k"], i: Int[Tensor, " q"], j: Int[Tensor, " k"], out: LeftOut
) -> Float[Tensor, "H q k"]:
    hidden = out.queries[i][:, None] | out.keys[j][None, :]
    if out.itself:
        hidden = hidden | (i[:, None] == j[None, :])
    return tile.masked_fill(hidden, 0.0)
