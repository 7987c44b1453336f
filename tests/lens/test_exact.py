"""Every weight of every attention there is, held to the equation; every operation to the array it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearhead.lens.maps import derived, pooling
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.maps.histogram import linear_edges
from clearhead.model.kernels import Scoring, fused_with_lse
from clearhead.model.masks import Causal, Mask
from tests.lens.calls import PLANS, carry_out

QUICK = settings(max_examples=30, derandomize=True, phases=(Phase.explicit, Phase.generate))

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
        ],
    ),
]

BOUNDS = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 1e-4, torch.float16: 1e-4}
"""What a weight may differ by from the float64 equation on the same q and k, which is how well the kernel's log-sum-exp
is known. The half precision kernels of the CPU take an exponential of 20 bits: relative errors of 4e-5 were seen."""


@contextmanager
def cut(tile: tuple[int, int], sample: int = pooling.SAMPLE) -> Iterator[None]:
    """Tiles and samples so small that a short text has many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derived, "ROWS", tile[0])
        patch.setattr(derived, "COLS", tile[1])
        patch.setattr(pooling, "SAMPLE", sample)
        yield


TILES = st.sampled_from([(derived.ROWS, derived.COLS), (7, 5), (3, 16), (16, 3)])


def close(found: Tensor, wanted: Tensor, atol: float) -> None:
    torch.testing.assert_close(found.double().cpu(), wanted.double().cpu(), atol=atol, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@given(plan=PLANS, data=st.data())
@QUICK
def test_every_weight_is_the_equations(device: str, plan: dict[str, Any], data: Any) -> None:
    """Shapes, offsets, grouped heads, every mask and bias and their combinations, softcap, sinks, scale, cross."""
    dtype = data.draw(st.sampled_from(list(BOUNDS)))
    call, wide, single = carry_out(plan, dtype=dtype, device=device)
    for batch in range(call.batch):
        for head in call.heads:
            m = call.map(head, batch)
            close(m.dense(), wide[batch, head], BOUNDS[dtype])
            if dtype == torch.float32:
                close(m.dense(), single[batch, head], 1e-6)


@pytest.mark.parametrize("device", DEVICES)
@given(plan=PLANS, data=st.data())
@QUICK
def test_every_piece_is_the_arrays(device: str, plan: dict[str, Any], data: Any) -> None:
    call, wide, _ = carry_out(plan, device=device)
    head, batch = data.draw(st.sampled_from(call.heads)), data.draw(st.integers(0, call.batch - 1))
    m, full = call.map(head, batch), wide[batch, head]
    i, j = (data.draw(st.integers(-size, size - 1)) for size in m.shape)
    close(m[i], full[i], 1e-6)
    close(m[i, j], full[i, j], 1e-6)
    close(m.row(i), full[i], 1e-6)
    close(m.column(j), full[:, j], 1e-6)
    rows, cols = (data.draw(st.slices(size)) for size in m.shape)
    wanted = full.cpu().numpy()
    np.testing.assert_allclose(m[rows, cols].cpu().numpy(), wanted[rows, cols], atol=1e-6, rtol=0)
    np.testing.assert_allclose(m[i, cols].cpu().numpy(), wanted[i, cols], atol=1e-6, rtol=0)
    np.testing.assert_allclose(m[rows, j].cpu().numpy(), wanted[rows, j], atol=1e-6, rtol=0)
    np.testing.assert_allclose(m[rows].cpu().numpy(), wanted[rows], atol=1e-6, rtol=0)
    a, b = (torch.tensor(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=9))) for size in m.shape)
    close(m.at(a, b), full[a][:, b], 1e-6)
    close(call.weights(a, b, batch)[call.heads.index(head)], full[a][:, b], 1e-6)
    assert torch.equal(m[i, j], m.tile(range(m.shape[0]), range(m.shape[1]))[i, j])  # to the bit, however it is had


@pytest.mark.parametrize("device", DEVICES)
@given(plan=PLANS, data=st.data(), tile=TILES)
@QUICK
def test_every_summary_is_the_arrays(device: str, plan: dict[str, Any], data: Any, tile: tuple[int, int]) -> None:
    with cut(tile):
        summaries_are_the_arrays(device, plan, data)


def summaries_are_the_arrays(device: str, plan: dict[str, Any], data: Any) -> None:
    call, wide, _ = carry_out(plan, device=device)
    m, full = call.map(0, 1), wide[1, 0].cpu()
    close(m.row_sums(), full.sum(1), 5e-6)
    close(m.column_sums(), full.sum(0), 5e-6)
    k = data.draw(st.integers(1, 50))
    best = m.top_rows(k)
    wanted = full.topk(min(k, full.shape[1])).values
    close(best.weights, wanted, 1e-6)
    for i, (weights, keys) in enumerate(zip(best.weights.tolist(), best.keys.tolist(), strict=True)):
        cells = m.top(i, k)
        assert [(cell.row, cell.column) for cell in cells] == [(i, key) for key in keys if key >= 0]
        assert len(set(keys) - {-1}) == len([key for key in keys if key >= 0])
        for weight, key in zip(weights, keys, strict=True):
            assert weight == pytest.approx(float(full[i, key]) if key >= 0 else 0.0, abs=1e-6)
    found = m.hottest(k)
    strongest = full.flatten().topk(min(k, full.numel())).values
    close(torch.tensor([cell.weight for cell in found]), strongest[: len(found)], 1e-6)
    assert float(strongest[len(found) :].sum()) < 1e-30 and len({cell[:2] for cell in found}) == len(found)
    for cell in found:
        assert cell.weight == pytest.approx(float(full[cell.row, cell.column]), abs=1e-6)
    counted = m.histogram(linear_edges(7))
    may = m.scoring.mask.allowed(*(torch.arange(size, device=device) for size in m.shape))
    assert counted.total == (full.numel() if may is None else int(may.expand(1, 1, *m.shape).sum()))
    above = [int((full >= edge).sum()) for edge in (counted.edges[1:-1] + 1e-6).tolist()]
    below = [int((full >= edge).sum()) for edge in (counted.edges[1:-1] - 1e-6).tolist()]
    at_least = counted.counts.flip(0).cumsum(0).flip(0)[1:].tolist()
    assert all(a <= n <= b for a, n, b in zip(above, at_least, below, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@given(
    plan=PLANS,
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    how=st.sampled_from(["max", "mean"]),
    tile=TILES,
    sample=st.sampled_from([pooling.SAMPLE, 40, 200]),
)
@QUICK
def test_overviews_end_exact(
    device: str, plan: dict[str, Any], height: int, width: int, how: Any, tile: tuple[int, int], sample: int
) -> None:
    call, wide, _ = carry_out(plan, device=device)
    m, full = call.map(0, 0), wide[0, 0].cpu()
    with cut(tile, sample):
        steps = list(m.overview(height, width, how))
        pooled = m.pool(height, width, how)
    height, width = min(height, m.shape[0]), min(width, m.shape[1])
    wanted = torch.empty(height, width, dtype=torch.float64)
    for a in range(height):
        for b in range(width):
            rows = slice(a * full.shape[0] // height, (a + 1) * full.shape[0] // height)
            cols = slice(b * full.shape[1] // width, (b + 1) * full.shape[1] // width)
            wanted[a, b] = full[rows, cols].max() if how == "max" else full[rows, cols].mean()
    close(pooled, wanted, 1e-6)
    assert steps[-1].exact and steps[-1].done == 1.0
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    for step in steps:
        close(step.picture[: step.exact_rows], wanted[: step.exact_rows], 1e-6)
        if how == "max":
            assert bool((step.picture.cpu() <= wanted + 1e-6).all())


@pytest.mark.parametrize("device", DEVICES)
def test_rows_at_32768_equal_float64(device: str) -> None:
    """The kernel's own log-sum-exp, 32,768 tokens, causal: rows, columns and a tile within 1e-6 of float64."""
    length, width = 32_768, 16
    q, k, v = (torch.randn(1, 1, length, width).to(device) for _ in range(3))
    scoring = Scoring(width**-0.5, Mask((Causal(),)))
    m = AttentionMap(q, k, fused_with_lse(q, k, v, scoring)[1], scoring)
    rows = torch.tensor([0, 1, 511, 16_000, length - 2, length - 1])
    scores = (q[0, 0, rows].double() @ k[0, 0].double().T).cpu() * scoring.scale
    exact = scores.masked_fill(torch.arange(length)[None] > rows[:, None], -torch.inf).softmax(-1)
    for n, row in enumerate(rows.tolist()):
        close(m[row], exact[n], 1e-6)
        close(m[row, 0:row:7], exact[n, 0:row:7], 1e-6)
    for column in (0, 16_000):
        close(m.column(column)[rows], exact[:, column], 1e-6)
    close(m[length - 2 :, 20_000:30_000], exact[-2:, 20_000:30_000], 1e-6)
    assert m.verify().ok
