"""The payload. What the page needs of each attention call: q, k, log-sum-exp, and how scores are formed, as a rule.

Numbers are float32, their bytes in four planes (all highest bytes first), deflated: the signs and exponents, which are
alike, shrink, and the rest stays as it is. With `mantissa` below 23 the last bits of q and k are rounded to zero, which
deflate then takes away; the reader does not change. What that costs is measured and said.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import LensError
from clearhead.lens.attention_map import derive_weights
from clearhead.lens.look import Look
from clearhead.lens.seen import Call
from clearhead.model.masks import BucketBias, Causal, Documents, KeyPadding, Mask, Prefix, Rule, SlopeBias, Window

EXACT = 23
"""The bits of a float32 mantissa."""

ROWS = 128


@dataclass(frozen=True)
class Packed:
    """Each call's description and its numbers. `error`: the largest difference from the exact weights."""

    calls: list[tuple[dict[str, Any], bytes]]
    error: float


def pack(seen: Look, mantissa: int) -> Packed:
    """Every call that was seen. Raises LensError for a mask or bias that is a table: a page holds rules."""
    calls, error = [], 0.0
    for kind in seen.kinds:
        for layer in range(seen.n_layers(kind)):
            call = seen.seen.call(layer, kind)
            q, k, lse = (x[:1].float() for x in call.tensors)
            if mantissa < EXACT:
                q, k = _rounded(q, mantissa), _rounded(k, mantissa)
                lse, worst = _adjusted(call, q, k)
                error = max(error, worst)
            distance = _by_distance(call)
            arrays = [q, k, lse] if distance is None else [q, k, lse, distance]
            calls.append((_described(call, distance is not None), _deflate(arrays)))
    return Packed(calls, error)


def _described(call: Call, distance: bool) -> dict[str, Any]:
    q, k, _ = call.tensors
    scoring = call.scoring
    return {
        "kind": call.kind,
        "layer": call.layer,
        "heads": q.shape[1],
        "kvHeads": k.shape[1],
        "width": q.shape[3],
        "rows": q.shape[2],
        "cols": k.shape[2],
        "offset": scoring.mask.offset,
        "scale": scoring.scale,
        "softcap": scoring.softcap,
        "distance": distance,
        "rules": [_rule(rule) for rule in scoring.mask.rules],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    """A rule as the page reads it (`RULES` in derive.js). Sinks need none: they are in the log-sum-exp."""
    match rule:
        case Causal():
            return {"rule": "causal"}
        case Window(size):
            return {"rule": "window", "size": size}
        case KeyPadding(real):
            return {"rule": "keys", "real": real[0].int().tolist()}
        case Prefix(length):
            return {"rule": "prefix", "length": int(length[0])}
        case Documents(of_query, of_key):
            return {"rule": "documents", "query": of_query[0].tolist(), "key": of_key[0].tolist()}
    raise LensError(
        f"this model's mask is a {type(rule).__name__}, which the page cannot hold; use clearhead explore for it."
    )


def _by_distance(call: Call) -> Float[Tensor, "H distances"] | None:
    """ALiBi's and T5's biases depend on the head and on key minus query alone: a number for each distance there is."""
    mask: Mask = call.scoring.mask
    if not mask.biases:
        return None
    tables = [bias for bias in mask.biases if not isinstance(bias, SlopeBias | BucketBias)]
    if tables:
        raise LensError(
            f"this model's bias is a {type(tables[0]).__name__}, a number for every pair of tokens, which the page "
            "cannot hold; use clearhead explore for it."
        )
    rows, cols = call.shape
    device = call.tensors[0].device
    last = torch.tensor([rows - 1 + mask.offset], device=device)
    keys = torch.arange(rows + cols - 1, device=device)  # from the last query, these stand at every distance
    added = [bias.add(last, keys).detach().float()[0, :, 0] for bias in mask.biases]
    return sum(added[1:], added[0]).expand(call.n_heads, -1)


def _rounded(x: Float[Tensor, "*shape"], mantissa: int) -> Float[Tensor, "*shape"]:
    """To the nearest float with so many bits of mantissa."""
    drop = EXACT - mantissa
    bits = x.contiguous().view(torch.int32) + (1 << (drop - 1))
    return (bits & ~((1 << drop) - 1)).view(torch.float32)


def _adjusted(
    call: Call, q: Float[Tensor, "1 H Tq D"], k: Float[Tensor, "1 Hkv Tk D"]
) -> tuple[Float[Tensor, "1 H Tq"], float]:
    """The log-sum-exp that lets rounded rows sum to what they did, and the largest difference left in any weight."""
    lse, worst = call.tensors[2][:1].float().clone(), 0.0
    cols = torch.arange(call.shape[1], device=q.device)
    for low in range(0, call.shape[0], ROWS):
        rows = torch.arange(low, min(call.shape[0], low + ROWS), device=q.device)
        exact = call.weights(rows, cols)
        ours = derive_weights(q[:, :, rows], k, lse[:, :, rows], call.scoring, rows, cols)[0]
        sums = exact.sum(-1)
        growth = torch.where(sums > 0, ours.sum(-1) / sums, torch.ones_like(sums))
        lse[0, :, rows] += growth.log()
        worst = max(worst, float((ours / growth[..., None] - exact).abs().max()))
    return lse, worst


def _deflate(arrays: list[Tensor]) -> bytes:
    numbers = np.concatenate([x.cpu().contiguous().numpy().astype("<f4", copy=False).ravel() for x in arrays])
    planes = numbers.view(np.uint8).reshape(-1, 4).T[::-1]  # (4, n), the highest bytes first
    packer = zlib.compressobj(6, strategy=zlib.Z_RLE)
    return packer.compress(np.ascontiguousarray(planes).tobytes()) + packer.flush()
