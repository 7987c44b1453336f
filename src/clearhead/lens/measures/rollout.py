"""Rollout. How much of each input token reaches each token of a layer, if attention and the residual were all there is.

    R_0 = I        R_l = (½ Ā_l + ½ I) R_{l−1}        Ā_l the mean of the layer's heads

(Abnar & Zuidema 2020, §3.) It is a rough account: it knows neither values nor feed-forward layers. The row of one
token streams at any length, r ← ½ r Ā_l + ½ r from the last layer to the first; the whole table is dense, and its size
guarded.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import InputError, OutsideError
from clearhead.lens.index import index
from clearhead.lens.look import Look, seen_in
from clearhead.lens.seen import Kind, Seen

LARGEST = 4096
"""Tokens. A table of more, 67 MB here, is not made; `rollout_row` has no such limit."""


def rollout(
    seen: Seen | Look, kind: Kind | None = None, *, layer: int | None = None, batch: int = 0, call: int = -1
) -> Float[Tensor, "T T"]:
    """R of a layer, the last by default, all T×T of it: row i says what reaches token i. float32.

    Rows sum to 1 (less with learned sinks). Raises InputError past `LARGEST` tokens, and for cross-attention.
    """
    inner, kind, last = _asked(seen, kind, layer)
    length = _length(inner, kind, last, call)
    if length > LARGEST:
        raise InputError(
            f"rollout makes a table of {length:,} × {length:,}; the limit is {LARGEST:,} tokens. "
            "rollout_row(seen, i) gives one token's row at any length."
        )
    result = torch.eye(length)
    for number in range(last + 1):
        result = 0.5 * result + 0.5 * _apply(inner, kind, number, batch, call, result)
    return result


def rollout_row(
    seen: Seen | Look, i: int, kind: Kind | None = None, *, layer: int | None = None, batch: int = 0, call: int = -1
) -> Float[Tensor, " T"]:
    """One row of `rollout`, by passes over the tiles of each layer: what of each input token reaches token i."""
    inner, kind, last = _asked(seen, kind, layer)
    length = _length(inner, kind, last, call)
    if not 0 <= index(i, "a token") < length:
        raise OutsideError(f"token {i} is outside the text; choose 0…{length - 1}.")
    row = torch.zeros(length)
    row[i] = 1.0
    for number in range(last, -1, -1):
        step = inner.call(number, kind, call)
        read = torch.zeros(length)
        for head in range(step.n_heads):
            for rows, cols, tile in step.map(head, batch).tiles():
                own = row[rows.start : rows.stop]
                if bool(own.any()):
                    read[cols.start : cols.stop] += (own.to(tile) @ tile).cpu()
        row = 0.5 * row + 0.5 * read / step.n_heads
    return row


def _apply(
    seen: Seen, kind: Kind, layer: int, batch: int, call: int, below: Float[Tensor, "T T"]
) -> Float[Tensor, "T T"]:
    """Ā_l · below."""
    step = seen.call(layer, kind, call)
    result = torch.zeros_like(below)
    for head in range(step.n_heads):
        for rows, cols, tile in step.map(head, batch).tiles():
            result[rows.start : rows.stop] += (tile @ below[cols.start : cols.stop].to(tile)).cpu()
    return result / step.n_heads


def _length(inner: Seen, kind: Kind, last: int, call: int) -> int:
    """The tokens of the text that each layer read whole. Raises InputError for a call that read on with a cache."""
    length = inner.call(0, kind, call).shape[0]
    for number in range(last + 1):
        shape = inner.call(number, kind, call).shape
        if shape != (length, length):
            raise InputError(
                f"rollout follows a text that every layer read whole, and in this call layer {number} read "
                f"{shape[0]:,} queries against {shape[1]:,} keys, as a step of writing does; choose a call that begins "
                "a text, call=0, or run the text through the model at once."
            )
    return length


def _asked(seen: Seen | Look, kind: Kind | None, layer: int | None) -> tuple[Seen, Kind, int]:
    inner = seen_in(seen, "rollout")
    kind = inner.call(0, kind).kind
    if kind == "cross":
        raise InputError("rollout follows one text through its layers; choose kind='encoder' or kind='decoder'.")
    layers = inner.n_layers(kind)
    if layer is not None and not 0 <= index(layer, "a layer") < layers:
        raise OutsideError(f"layer {layer} is outside the {kind}; choose 0…{layers - 1}.")
    return inner, kind, layers - 1 if layer is None else layer
