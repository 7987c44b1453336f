"""Kernels. The equation and its fast twins: plain functions from q, k, v to the output of attention.

`equation` is softmax(QKᵀ·scale)V written down. `fused` is the same through PyTorch's fused kernels, `blockwise`
the same as an online softmax over tiles (Milakov & Gimelshein 2018; Dao et al. 2022). They agree to rounding, and
tests say so. `fused_with_lse` also returns what the fused kernel throws away: each row's log-sum-exp, from which any
weight can be had back, A[i, j] = exp(score[i, j] − lse[i]). The lens stands on this one function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.model.masks import NOTHING, Mask

Q = Float[Tensor, "B H Tq D"]
K = Float[Tensor, "B Hkv Tk D"]
V = Float[Tensor, "B Hkv Tk Dv"]
Out = Float[Tensor, "B H Tq Dv"]
Lse = Float[Tensor, "B H Tq"]

MASK_CELLS = 2**24
"""A mask tile handed to a fused kernel has at most about this many numbers; longer texts go by blocks of queries."""

ROWS, COLS = 256, 1024
"""The tile of the blockwise twin."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """How q and k become scores: cap(q·k·scale) + bias, −∞ where the mask forbids; sinks join the softmax.

    scale: usually 1/√D. softcap: c·tanh(s/c), before bias and mask. sinks: a logit per head that takes weight and
    gives no value. bias_dtype: the precision that the bias is rounded to before it is added; None leaves it as it is.
    """

    scale: float
    mask: Mask = field(default_factory=Mask)
    softcap: float | None = None
    sinks: Float[Tensor, " H"] | None = None
    bias_dtype: torch.dtype | None = None

    def of(self, batch: int, head: int) -> Scoring:
        """The scoring of one text and one head."""
        sinks = self.sinks[head : head + 1] if self.sinks is not None else None
        return replace(self, mask=self.mask.of(batch, head), sinks=sinks)

    def kept(self) -> Scoring:
        """A copy to keep: what others change later does not reach it. T×T is only what was handed over as a table."""
        sinks = self.sinks.detach().clone() if self.sinks is not None else None
        return replace(self, mask=self.mask.kept(), sinks=sinks)

    def scores(
        self,
        q: Float[Tensor, "B H q D"],
        k: Float[Tensor, "B Hkv k D"],
        rows: Int[Tensor, " q"],
        cols: Int[Tensor, " k"],
    ) -> Float[Tensor, "B H q k"]:
        """The scores of these rows against these columns, in float32 or better; `q`, `k` hold just those."""
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        k = k.to(wide)
        if k.shape[1] != q.shape[1]:
            k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        with torch.autocast(q.device.type, enabled=False):  # which would do the product in half precision
            scores = q.to(wide) @ k.transpose(-1, -2) * self.scale
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        bias = self.mask.bias(rows, cols)
        if bias is not None:
            scores = scores + bias.to(self.bias_dtype or wide).to(wide)
        allowed = self.mask.allowed(rows, cols)
        return scores if allowed is None else scores.masked_fill(~allowed, -math.inf)


@runtime_checkable
class Kernel(Protocol):
    """What `Attention` calls: swap it to watch attention, or to change it."""

    def __call__(self, q: Q, k: K, v: V, scoring: Scoring, *, dropout: float = 0.0) -> Out:
        """Attention's output of each head."""
        ...


def as_run(q: Q, k: K, v: V) -> tuple[Q, K, V]:
    """q, k and v as a kernel will have them: under autocast in its dtype, as PyTorch's own attention takes them."""
    kind = q.device.type
    if not torch.is_autocast_enabled(kind) or not q.is_floating_point() or q.dtype == torch.float64:
        return q, k, v
    dtype = torch.get_autocast_dtype(kind)
    return q.to(dtype), k.to(dtype), v.to(dtype)


# ── the equation ─────────────────────────────────────────────────────────────────────────────────────────────────


def attention_weights(
    q: Q,
    k: K,
    mask: Mask | None = None,
    scale: float | None = None,
    *,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | None = None,
) -> Float[Tensor, "B H Tq Tk"]:
    """softmax(cap(QKᵀ·scale) + bias): the weights themselves, T×T of them (Vaswani et al. 2017, eq. 1).

    scale: None means 1/√D. With sinks, a row's weights sum to less than 1. A row that may read nothing is all zeros.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _weights(q, k, Scoring(scale, mask if mask is not None else Mask(), softcap, sinks))


def _weights(q: Q, k: K, scoring: Scoring) -> Float[Tensor, "B H Tq Tk"]:
    rows = torch.arange(q.shape[2], device=q.device)
    cols = torch.arange(k.shape[2], device=q.device)
    scores = scoring.scores(q, k, rows, cols)
    if scoring.sinks is not None:
        sink = scoring.sinks.to(scores.dtype)[None, :, None, None].expand(*scores.shape[:3], 1)
        return torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
    reads_nothing = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(reads_nothing, 0.0).softmax(-1).masked_fill(reads_nothing, 0.0)


def equation(q: Q, k: K, v: V, scoring: Scoring, *, dropout: float = 0.0) -> Out:
    """softmax(QKᵀ·scale)V as it is written: the slow twin that the others are held to."""
    q, k, v = as_run(q, k, v)
    weights = _weights(q, k, scoring)
    if dropout:
        weights = F.dropout(weights, dropout)
    values = v.to(weights.dtype)
    if v.shape[1] != q.shape[1]:
        values = values.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    with torch.autocast(q.device.type, enabled=False):
        return (weights @ values).to(v.dtype)


# ── the fused twin ───────────────────────────────────────────────────────────────────────────────────────────────


def fused(q: Q, k: K, v: V, scoring: Scoring, *, dropout: float = 0.0) -> Out:
    """The same through `torch.nn.functional.scaled_dot_product_attention`; what it cannot do goes blockwise.

    No mask larger than `MASK_CELLS` is written: longer texts go by blocks of queries, each over the keys in reach.
    """
    if scoring.softcap is not None or scoring.sinks is not None:
        return blockwise(q, k, v, scoring, dropout=dropout)[0]
    q, k, v = as_run(q, k, v)
    grouped = q.shape[1] != k.shape[1]
    outs = []
    for rows in _query_blocks(q, k, scoring.mask):
        cols, tile, causal = _mask_for(q, k, scoring.mask, rows)
        outs.append(
            F.scaled_dot_product_attention(
                _slice(q, rows),
                _slice(k, cols),
                _slice(v, cols),
                attn_mask=tile,
                dropout_p=dropout,
                is_causal=causal,
                scale=scoring.scale,
                enable_gqa=grouped,
            )
        )
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)


def fused_with_lse(q: Q, k: K, v: V, scoring: Scoring, *, dropout: float = 0.0) -> tuple[Out, Lse]:
    """`fused`, and the log-sum-exp of each row's scores (float32, no gradient): the numbers that the same kernel had.

    The ops are private to PyTorch and are called here and nowhere else; where none fits, the blockwise twin answers.
    """
    if dropout:  # no op gives both: the kernel runs as it would, and the log-sum-exp is worked out beside it
        with torch.no_grad():
            lse = blockwise(q, k, v, scoring)[1]
        return fused(q, k, v, scoring, dropout=dropout), lse
    op = _lse_op(q, v, scoring)
    if op is None:
        return blockwise(q, k, v, scoring)
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in as_run(q, k, v))  # the ops take that for granted
    outs, lses = [], []
    for rows in _query_blocks(q, k, scoring.mask):
        cols, tile, causal = _mask_for(q, k, scoring.mask, rows)
        out, lse = op(_slice(q, rows), _slice(k, cols), _slice(v, cols), tile, causal, scoring.scale)
        outs.append(out)
        lses.append(lse)
    if len(outs) == 1:
        return outs[0], lses[0]
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


def kernel_name(q: Q, k: K, v: V, scoring: Scoring, *, dropout: float = 0.0) -> str:
    """In words, the kernel that makes `fused_with_lse`'s output for these."""
    op = _lse_op(q, v, scoring)
    if scoring.softcap is not None or scoring.sinks is not None or (op is None and not dropout):
        return "blockwise online softmax"
    if dropout:
        return "scaled_dot_product_attention, with dropout"
    if op is _flash_cpu:
        return "fused flash attention (CPU)"
    rows = range(q.shape[2])
    whole = scoring.mask.is_open(rows, k.shape[2]) or scoring.mask.is_causal(rows, k.shape[2])
    return f"fused {'flash' if whole and _takes_flash(q) else 'memory-efficient'} attention (CUDA)"


@runtime_checkable
class _LseOp(Protocol):
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, tile: Tensor | None, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]: ...


def _lse_op(q: Q, v: V, scoring: Scoring) -> _LseOp | None:
    plain = scoring.softcap is None and scoring.sinks is None and q.shape[-1] == v.shape[-1]
    if not plain or scoring.mask.needs_grad or not q.is_floating_point():
        return None
    if q.device.type == "cpu":
        return _flash_cpu
    if q.device.type == "cuda" and q.dtype in (torch.float16, torch.bfloat16, torch.float32):
        return _flash_cuda
    return None


def _flash_cpu(
    q: Tensor, k: Tensor, v: Tensor, tile: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, attn_mask=tile, scale=scale
    )
    return out, lse


def _flash_cuda(
    q: Tensor, k: Tensor, v: Tensor, tile: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The flash op where it can (half precision, no mask, Ampere or later, heads to 256), else the efficient one."""
    width = q.shape[-1]
    q, k, v = (F.pad(x, (0, -width % 8)) for x in (q, k, v))  # zeros score nothing; SDPA itself pads as much
    if tile is None and _takes_flash(q):
        result = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
        return result[0][..., :width], _clean(result[1])
    groups = q.shape[1] // k.shape[1]
    if groups > 1:  # this op has no grouped heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    if tile is not None:  # this op reads whole 16s of a row: the rows are laid that far apart, as SDPA itself does
        keys = tile.shape[-1]
        tile = F.pad(tile, (0, -keys % 16))[..., :keys].expand(q.shape[0], q.shape[1], -1, -1)
    result = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, tile, True, 0.0, causal, scale=scale)
    out = result[0] if tile is None else torch.nan_to_num(result[0], nan=0.0)
    return out[..., :width], _clean(result[1][..., : q.shape[2]])


def _takes_flash(q: Tensor) -> bool:
    half = q.dtype in (torch.float16, torch.bfloat16)
    return half and q.shape[-1] <= 256 and torch.cuda.get_device_capability(q.device) >= (8, 0)


def _clean(lse: Tensor) -> Tensor:
    """One word for rows that read nothing, whatever the kernel said."""
    return torch.where(lse.isfinite(), lse, torch.full_like(lse, NOTHING))


def _slice(x: Tensor, span: range) -> Tensor:
    whole = span.start == 0 and span.stop == x.shape[2]
    return x if whole else x[:, :, span.start : span.stop]


def _query_blocks(q: Q, k: K, mask: Mask) -> list[range]:
    tq, tk = q.shape[2], k.shape[2]
    everything = range(tq)
    if tq == 0 or mask.is_open(everything, tk) or mask.is_causal(everything, tk):
        return [everything]
    per_row = q.shape[0] * tk * (q.shape[1] if mask.per_head else 1)
    step = max(1, min(tq, MASK_CELLS // max(1, per_row)))
    return [range(start, min(tq, start + step)) for start in range(0, tq, step)]


def _mask_for(q: Q, k: K, mask: Mask, rows: range) -> tuple[range, Tensor | None, bool]:
    keys = k.shape[2]
    if mask.is_open(rows, keys):
        return range(keys), None, False
    if mask.is_causal(rows, keys) and len(rows) == keys:
        return range(keys), None, True
    cols = mask.reach(rows, keys) if len(rows) < q.shape[2] else range(keys)
    if len(cols) == 0:
        cols = range(min(1, keys))
    return cols, mask.additive(rows, cols, dtype=q.dtype, device=q.device), False


# ── the blockwise twin ───────────────────────────────────────────────────────────────────────────────────────────


def blockwise(q: Q, k: K, v: V, scoring: Scoring, *, dropout: float = 0.0) -> tuple[Out, Lse]:
    """Attention as an online softmax over tiles, in plain PyTorch: any device, mask, bias, softcap, sink.

    Returns the output and each row's log-sum-exp, sink included; 0 for a row that may read nothing.
    """
    q, k, v = as_run(q, k, v)
    groups = q.shape[1] // v.shape[1]
    outs, lses = [], []
    with torch.autocast(q.device.type, enabled=False):
        for start in range(0, q.shape[2], ROWS):
            rows = range(start, min(q.shape[2], start + ROWS))
            out, lse = _row_block(q, k, v, scoring, rows, groups, dropout)
            outs.append(out)
            lses.append(lse)
    if not outs:
        empty = q.new_zeros(*q.shape[:2], 0, v.shape[-1])
        return empty.to(v.dtype), q.new_zeros(*q.shape[:3], dtype=torch.float32)
    out, lse = torch.cat(outs, dim=2), torch.cat(lses, dim=2).detach()
    return out.to(v.dtype), lse if lse.dtype == torch.float64 else lse.float()


def _row_block(
    q: Q, k: K, v: V, scoring: Scoring, rows: range, groups: int, dropout: float
) -> tuple[Float[Tensor, "B H q Dv"], Float[Tensor, "B H q"]]:
    i = torch.arange(rows.start, rows.stop, device=q.device)
    queries = _slice(q, rows)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    top = torch.full(queries.shape[:3], -math.inf, dtype=wide, device=q.device)  # the largest score so far
    total = torch.zeros_like(top)  # Σ exp(score − top)
    out = torch.zeros(*queries.shape[:3], v.shape[-1], dtype=wide, device=q.device)
    reach = scoring.mask.reach(rows, k.shape[2])
    for low in range(reach.start, reach.stop, COLS):
        cols = range(low, min(reach.stop, low + COLS))
        scores = scoring.scores(queries, _slice(k, cols), i, torch.arange(cols.start, cols.stop, device=q.device))
        new_top = torch.maximum(top, scores.detach().amax(-1))
        anchor = torch.where(new_top == -math.inf, torch.zeros_like(new_top), new_top)
        shrink = torch.exp(top - anchor)
        part = torch.exp(scores - anchor[..., None])
        total = total * shrink + part.sum(-1)
        if dropout:
            part = F.dropout(part, dropout)
        values = _slice(v, cols).to(wide)
        if groups > 1:
            values = values.repeat_interleave(groups, dim=1)
        out = out * shrink[..., None] + part @ values
        top = new_top
    if scoring.sinks is not None:
        sink = scoring.sinks.to(wide)[None, :, None].expand_as(top)
        new_top = torch.maximum(top, sink.detach())
        shrink = torch.exp(top - new_top)
        total = total * shrink + torch.exp(sink - new_top)
        out, top = out * shrink[..., None], new_top
    nothing = total == 0
    safe = torch.where(nothing, torch.ones_like(total), total)
    lse = torch.where(nothing, torch.full_like(top, NOTHING), top + safe.log())
    return out / safe[..., None], lse
