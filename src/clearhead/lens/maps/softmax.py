"""The softmax, taken apart. From q, k and the log-sum-exp to weights, tile by tile, and to the log-sum-exp itself.

`derive_weights` is the definition, for any rows and columns of any number of heads. `log_weights` is its fast twin for
a tile of one head, and stops before the exponential, which many a question does not need.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.model.kernels import Scoring
from clearhead.model.masks import NOTHING

THIN = 16
"""A product with fewer rows or columns goes another way through the BLAS and rounds otherwise (on scores of 75 that is
1e-5 of a weight). Padded to this many, a row, a column or one cell has the very numbers of any tile that holds it."""

KEYS = 4096
"""So many keys are scored at once where a log-sum-exp is worked out."""


def derive_weights(
    q: Float[Tensor, "B H q D"],
    k: Float[Tensor, "B Hkv k D"],
    lse: Float[Tensor, "B H q"],
    scoring: Scoring,
    rows: Int[Tensor, " q"],
    cols: Int[Tensor, " k"],
) -> Float[Tensor, "B H q k"]:
    """exp(score − lse) of these rows and columns, float32 or better. `q`, `k`, `lse` hold just those."""
    (q, i), (k, j) = _thick(q, rows), _thick(k, cols)
    scores = scoring.scores(q, k, i, j)[..., : len(rows), : len(cols)]
    return torch.exp(scores - lse.to(scores.dtype)[..., None])


def log_weights(
    q: Float[Tensor, "q D"],
    k: Float[Tensor, "k D"],
    lse: Float[Tensor, " q"],
    scoring: Scoring,
    rows: Int[Tensor, " q"] | range,
    cols: Int[Tensor, " k"] | range,
) -> Float[Tensor, "q k"]:
    """score − lse of a tile of one head, −∞ where reading is not allowed. Ranges count by ones.

    Rounded as the kernels round: product, scale, cap, bias, one after the other. The mask is not asked where the whole
    tile may be read.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    q, k = (F.pad(x, (0, 0, 0, THIN - len(x))) if len(x) < THIN else x for x in (q.to(wide), k.to(wide)))
    with torch.autocast(q.device.type, enabled=False):  # which would do the product in half precision
        if len(rows) < THIN:  # the same numbers, keys first: half the time for one row of a long text
            logs = torch.mm(k, q.T).T[: len(rows), : len(cols)].contiguous()
        else:
            logs = torch.mm(q, k.T)[: len(rows), : len(cols)]
    if scoring.scale != 1.0:
        logs *= scoring.scale
    if scoring.softcap is not None:
        logs = logs.div_(scoring.softcap).tanh_().mul_(scoring.softcap)
    mask = scoring.mask
    if isinstance(rows, range) and isinstance(cols, range) and mask.is_open(rows, cols.stop):
        return logs.sub_(lse.to(wide)[:, None])
    i, j = (
        torch.arange(span.start, span.stop, device=q.device) if isinstance(span, range) else span.to(q.device)
        for span in (rows, cols)
    )
    bias = mask.bias(i, j)
    if bias is not None:
        logs += bias.to(scoring.bias_dtype or wide).to(wide)[0, 0]
    logs -= lse.to(wide)[:, None]
    allowed = mask.allowed(i, j)
    return logs if allowed is None else logs.masked_fill_(~allowed[0, 0], -math.inf)


def exponential(logs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """e^logs, in place. In float32, what is under e^−87 is 0: numbers below the normal ones cost six times as much."""
    if logs.dtype == torch.float64:
        return logs.exp_()
    return torch.threshold_(logs.clamp_(min=-87.0).exp_(), 1.7e-38, 0.0)


def _thick(x: Float[Tensor, "B H n D"], at: Int[Tensor, " n"]) -> tuple[Float[Tensor, "B H m D"], Int[Tensor, " m"]]:
    """At least THIN rows and their numbers; the last is repeated where there are fewer."""
    more = THIN - len(at)
    if more <= 0 or len(at) == 0:
        return x, at
    return torch.cat((x, x[:, :, -1:].expand(-1, -1, more, -1)), dim=2), torch.cat((at, at[-1:].expand(more)))


def log_sum_exp(
    q: Float[Tensor, "B H q D"], k: Float[Tensor, "B Hkv Tk D"], scoring: Scoring, rows: Int[Tensor, " q"]
) -> Float[Tensor, "B H q"]:
    """log Σ_j exp(score) of these rows over all keys, sinks included; 0 for a row that may read nothing."""
    total = torch.full(q.shape[:3], -math.inf, device=q.device, dtype=torch.float32)
    total = total.double() if q.dtype == torch.float64 else total
    first, last = (int(rows.min()), int(rows.max())) if len(rows) else (0, -1)
    reach = scoring.mask.reach(range(first, last + 1), k.shape[2])
    for low in range(reach.start, reach.stop, KEYS):
        cols = torch.arange(low, min(reach.stop, low + KEYS), device=q.device)
        part = k[:, :, low : low + len(cols)].to(q.device, total.dtype)
        total = torch.logaddexp(total, scoring.scores(q, part, rows, cols).logsumexp(-1))
    if scoring.sinks is not None:
        total = torch.logaddexp(total, scoring.sinks.to(total.dtype)[None, :, None].expand_as(total))
    return torch.where(total == -math.inf, torch.full_like(total, NOTHING), total)
