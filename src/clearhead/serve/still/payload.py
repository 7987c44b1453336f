"""The payload. What the page needs of each attention call: q, k, log-sum-exp, and how scores are formed, as a rule.

Where they fit, q and k are float32, to the bit. Where they do not, each is a whole number of steps; a step is a power
of two for each head and dimension, finer in q where k is large and finer in k where q is large, so that each rounding
moves the scores by about as much, and all of them together by as little as so many bits allow. What the rounding costs
is measured and said. The log-sum-exp is worked out anew from what is held, in float64, so that rows sum as they should.

The words of 32 bits go in four planes, all highest bytes first: signs, exponents and leading zeros are alike there, and
deflate takes them away. The page is UTF-16, in which a letter has room for 15 bits; base64 would be a quarter larger.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import LensError
from clearhead.lens.look import Look
from clearhead.lens.seen import Call
from clearhead.model.kernels import Scoring
from clearhead.model.masks import (
    NOTHING,
    BucketBias,
    Causal,
    Documents,
    KeyPadding,
    Mask,
    Prefix,
    Rule,
    SlopeBias,
    Window,
)

FINEST = 24.0
"""A step of 2⁻²⁴ moves a score by about as much: weights are then some 2e-7 from the exact ones."""

COARSEST = 16.0

ROWS = 128

MEASURED = 512
"""What rounding costs is measured on so many queries of each call; of a longer text on every n-th."""


@dataclass(frozen=True)
class Packed:
    """Each call's description and its letters. `bits`: the steps are about 2^−bits, None where nothing was rounded.
    `error`: the largest difference of a weight from the exact one."""

    calls: list[tuple[dict[str, Any], bytes]]
    bits: float | None
    error: float

    @property
    def nbytes(self) -> int:
        """How large it is in a page."""
        return sum(len(letters) for _, letters in self.calls)


def pack(seen: Look, bits: float | None) -> Packed:
    """Every call that was seen. Raises LensError for a mask or bias that is a table: a page holds rules."""
    calls, error = [], 0.0
    for kind in seen.kinds:
        for layer in range(seen.n_layers(kind)):
            call = seen.seen.call(layer, kind)
            facts, words, worst = _packed(call, bits)
            data = _deflate(words)
            calls.append(({**facts, "bytes": len(data)}, letters(data)))
            error = max(error, worst)
    return Packed(calls, bits, error)


def size(seen: Look, bits: float) -> int:
    """About how large `pack` would be, without what rounding costs having been measured."""
    calls = [seen.seen.call(layer, kind) for kind in seen.kinds for layer in range(seen.n_layers(kind))]
    rest = sum(8 * call.tensors[2][:1].numel() for call in calls)  # the log-sum-exp, which hardly deflates
    return (sum(len(_deflate(_held(call, bits).words)) for call in calls) + rest) * 16 // 15


@dataclass(frozen=True)
class _Held:
    """q and k of a call as the page holds them: their words, the exponents of their steps, and what they then are."""

    words: list[np.ndarray]
    steps: list[list[int]] | None
    q: Float[Tensor, "1 H Tq D"]
    k: Float[Tensor, "1 Hkv Tk D"]


def _exact(call: Call) -> tuple[Float[Tensor, "1 H Tq D"], Float[Tensor, "1 Hkv Tk D"]]:
    """q and k as the lens has them, of the first text."""
    if len(call.heads) < call.n_heads:
        raise LensError("a page shows all heads, and some were not kept; look again without heads=….")
    q, k, lse = call.tensors
    return q[:1].to(lse.device), k[:1].to(lse.device)


def _held(call: Call, bits: float | None) -> _Held:
    q, k = _exact(call)
    wide_q, wide_k = q.double(), k.double()
    if bits is None:
        return _Held(_words(q.float(), k.float()), None, wide_q, wide_k)
    q_steps, k_steps = _steps(wide_q, wide_k, call.scoring.scale, bits)
    whole_q, whole_k = torch.round(wide_q / 2.0**q_steps), torch.round(wide_k / 2.0**k_steps)
    steps = [q_steps.flatten().tolist(), k_steps.flatten().tolist()]
    return _Held(_words(_zigzag(whole_q), _zigzag(whole_k)), steps, whole_q * 2.0**q_steps, whole_k * 2.0**k_steps)


def _packed(call: Call, bits: float | None) -> tuple[dict[str, Any], list[np.ndarray], float]:
    """One call's facts, its words of 32 bits, and what rounding cost."""
    held, distance = _held(call, bits), _by_distance(call)
    facts = {**_described(call, distance is not None), "steps": held.steps}
    exact = None if bits is None else tuple(x.double() for x in _exact(call))
    lse, worst = _log_sum_exp(call, held.q, held.k, exact)
    high = lse.float()
    low = (lse - high.double()).float()
    return facts, [*held.words, *_words(high, low, *([] if distance is None else [distance]))], worst


def _steps(
    q: Float[Tensor, "1 H Tq D"], k: Float[Tensor, "1 Hkv Tk D"], scale: float, bits: float
) -> tuple[Int[Tensor, "1 H 1 D"], Int[Tensor, "1 Hkv 1 D"]]:
    """The exponents of the steps: q's so that step · |k| · scale is about 2^−bits, and k's likewise."""
    groups = q.shape[1] // k.shape[1]
    size_q, size_k = (x.pow(2).mean(2, keepdim=True).sqrt() for x in (q, k))
    size_q = size_q.unflatten(1, (-1, groups)).pow(2).mean(2).sqrt()  # the heads that read one key head together
    size_k = size_k.repeat_interleave(groups, dim=1)
    steps = []
    for other, own in ((size_k, q), (size_q, k)):
        step = torch.log2(2.0**-bits / (other * abs(scale)).clamp(min=1e-30)).round()
        least = torch.log2(own.abs().amax(2, keepdim=True).clamp(min=1e-30)).ceil() - 29  # a word has 32 bits
        steps.append(torch.maximum(step, least).clamp(-120, 120).long())
    return steps[0], steps[1]


def _log_sum_exp(
    call: Call, q: Tensor, k: Tensor, exact: tuple[Tensor, ...] | None
) -> tuple[Float[Tensor, "1 H Tq"], float]:
    """Each row's log-sum-exp from what the page holds, and the largest difference from the exact numbers' weights."""
    rows, cols = call.shape
    j = torch.arange(cols, device=q.device)
    scoring = call.scoring
    lse = torch.zeros(1, q.shape[1], rows, dtype=torch.float64, device=q.device)
    worst = 0.0
    every = -(-rows // MEASURED)
    for low in range(0, rows, ROWS):
        i = torch.arange(low, min(rows, low + ROWS), device=q.device)
        scores = scoring.scores(q[:, :, i], k, i, j)
        lse[:, :, i] = _summed(scores, scoring)
        if exact is not None:
            some = i[i % every == 0]
            ran = scoring.scores(exact[0][:, :, some], exact[1], some, j)
            ours = torch.exp(scores[:, :, some - low] - lse[:, :, some, None])
            difference = (ours - torch.exp(ran - _summed(ran, scoring)[..., None])).abs()
            worst = max(worst, float(difference.max())) if difference.numel() else worst
    return lse, worst


def _summed(scores: Float[Tensor, "1 H q k"], scoring: Scoring) -> Float[Tensor, "1 H q"]:
    total = scores.logsumexp(-1)
    if scoring.sinks is not None:
        total = torch.logaddexp(total, scoring.sinks.double()[None, :, None].expand_as(total))
    return torch.where(total == -torch.inf, torch.full_like(total, NOTHING), total)


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
    total = sum(added[1:], added[0])
    return total.to(call.scoring.bias_dtype or total.dtype).float().expand(call.n_heads, -1)  # as the kernel added it


# ── from numbers to letters ──────────────────────────────────────────────────────────────────────────────────────


def _words(*tensors: Tensor) -> list[np.ndarray]:
    """Their numbers as words of 32 bits."""
    return [x.cpu().contiguous().numpy().view(np.uint32) for x in tensors]


def _zigzag(whole: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """0, −1, 1, −2, 2 … as 0, 1, 2, 3, 4 …: small numbers of either sign begin with zeros."""
    n = whole.to(torch.int32)
    return (n << 1) ^ (n >> 31)


def _deflate(words: list[np.ndarray]) -> bytes:
    numbers = np.concatenate([x.ravel() for x in words]).astype("<u4", copy=False)
    planes = numbers.view(np.uint8).reshape(-1, 4).T[::-1]  # (4, n), the highest bytes first
    packer = zlib.compressobj(6, strategy=zlib.Z_RLE)
    return packer.compress(np.ascontiguousarray(planes).tobytes()) + packer.flush()


FIRST_LETTER = 0x100
"""15 bits are the letters U+0100 … U+80FF: none of them ends a script, none is half of a pair."""


def letters(data: bytes) -> bytes:
    """The bytes, 15 bits a letter, as UTF-16 (little-endian); the last letter is filled up with zeros."""
    out = bytearray()
    chunk = 15 * 2**16
    for low in range(0, len(data), chunk):
        bits = np.unpackbits(np.frombuffer(data[low : low + chunk], np.uint8))
        groups = np.pad(bits, (0, -len(bits) % 15)).reshape(-1, 15)
        values = groups @ (1 << np.arange(14, -1, -1)) + FIRST_LETTER
        out += values.astype("<u2").tobytes()
    return bytes(out)
