"""AttentionMap equals the weights written out, for every rule, and behaves like the array that it does not store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clearhead.errors import ClearheadError, InputError, OutsideError, ReleasedError
from clearhead.lens.maps import derived
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.seen import Call
from clearhead.model.kernels import Scoring, attention_weights, fused_with_lse
from clearhead.model.masks import (
    BucketBias,
    Causal,
    Documents,
    KeyPadding,
    Mask,
    Prefix,
    SlopeBias,
    Table,
    TableBias,
    Window,
)

BATCH, HEADS, KV_HEADS, WIDTH = 2, 4, 2, 8


SWITCHES = ["cross", "padding", "causal", "documents", "prefix", "slopes", "buckets", "both_ways"]
SWITCHES += ["table", "table_bias", "sinks"]
PLANS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "queries": st.integers(1, 40),
        "keys": st.integers(1, 40),
        "scale": st.sampled_from([1.0, WIDTH**-0.5]),
        "softcap": st.sampled_from([None, 5.0]),
        "window": st.integers(0, 8),
        **{name: st.booleans() for name in SWITCHES},
    }
)
"""A call of an attention of any kind: what it has, and the seed of its numbers."""


def carry_out(plan: dict[str, Any]) -> tuple[Call, Tensor]:
    """The call that a plan describes, and its weights written out by the equation."""
    generator = torch.Generator().manual_seed(plan["seed"])
    queries, cross = plan["queries"], plan["cross"]
    keys = plan["keys"] if cross else queries

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rules: list[Any] = []
    biases: list[Any] = []
    if plan["padding"]:
        rules.append(KeyPadding(torch.rand(BATCH, keys, generator=generator) > 0.3))
    if not cross:
        if plan["causal"]:
            rules.append(Causal())
        if plan["window"]:
            rules.append(Window(plan["window"]))
        if plan["documents"]:
            documents = torch.randint(0, 3, (BATCH, keys), generator=generator).sort().values
            rules.append(Documents(documents, documents))
        if plan["prefix"]:
            rules.append(Prefix(torch.randint(0, keys + 1, (BATCH,), generator=generator)))
        if plan["slopes"]:
            biases.append(SlopeBias(normal(HEADS).abs()))
        if plan["buckets"]:
            biases.append(BucketBias(normal(8, HEADS), plan["both_ways"], 16))
    if plan["table"]:
        rules.append(Table(torch.rand(1, HEADS, queries, keys, generator=generator) > 0.2))
    if plan["table_bias"]:
        biases.append(TableBias(normal(BATCH, 1, queries, keys)))
    mask = Mask(tuple(rules), tuple(biases))
    scoring = Scoring(plan["scale"], mask, plan["softcap"], normal(HEADS) if plan["sinks"] else None)
    shrink = 1.0 if plan["scale"] < 1 else WIDTH**-0.5  # as T5 learns to: scores of ±5, not ±15, keep 1e-6 in float32
    q = normal(BATCH, HEADS, queries, WIDTH) * shrink
    k, v = normal(BATCH, KV_HEADS, keys, WIDTH), normal(BATCH, KV_HEADS, keys, 8)
    _, lse = fused_with_lse(q, k, v, scoring)
    dense = attention_weights(q, k, mask, scoring.scale, softcap=scoring.softcap, sinks=scoring.sinks)
    return Call(q, k, lse, scoring, kind="decoder", layer=0, module="test"), dense


@given(PLANS, st.data())
def test_a_map_is_the_equation(plan: dict[str, Any], data: Any) -> None:
    call, dense = carry_out(plan)
    head, batch = data.draw(st.integers(0, HEADS - 1)), data.draw(st.integers(0, BATCH - 1))
    m, full = call.map(head, batch), dense[batch, head]
    close = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(m.dense(), full, **close)
    i, j = data.draw(st.integers(-m.shape[0], m.shape[0] - 1)), data.draw(st.integers(-m.shape[1], m.shape[1] - 1))
    torch.testing.assert_close(m[i], full[i], **close)
    torch.testing.assert_close(m[i, j], full[i, j], **close)
    torch.testing.assert_close(m.column(j), full[:, j], **close)
    rows, cols = data.draw(st.slices(m.shape[0])), data.draw(st.slices(m.shape[1]))
    as_array = full.numpy()[rows, cols]
    np.testing.assert_allclose(m[rows, cols].numpy(), as_array, atol=1e-6, rtol=0)
    torch.testing.assert_close(m.row_sums(), full.sum(1), atol=5e-6, rtol=0)
    torch.testing.assert_close(m.column_sums(), full.sum(0), atol=5e-6, rtol=0)
    for cell in m.top(i, 3):
        assert cell.weight == pytest.approx(float(full[cell.row, cell.column]), abs=1e-6)
    strongest = [cell.weight for cell in m.hottest(5)]
    expected = full.flatten().topk(min(5, full.numel())).values
    torch.testing.assert_close(torch.tensor(strongest), expected[expected > 0][: len(strongest)], **close)


@given(PLANS, st.integers(1, 50), st.integers(1, 50), st.sampled_from(["max", "mean"]))
def test_pooling_is_exact(plan: dict[str, Any], height: int, width: int, how: Any) -> None:
    call, dense = carry_out(plan)
    pooled, full = call.map(1, 0).pool(height, width, how), dense[0, 1]
    height, width = min(height, full.shape[0]), min(width, full.shape[1])
    assert pooled.shape == (height, width)
    for a in range(height):
        for b in range(width):
            rows = slice(a * full.shape[0] // height, (a + 1) * full.shape[0] // height)
            cols = slice(b * full.shape[1] // width, (b + 1) * full.shape[1] // width)
            block = full[rows, cols]
            assert float(pooled[a, b]) == pytest.approx(float(block.max() if how == "max" else block.mean()), abs=1e-6)


@pytest.mark.parametrize("rows, cols", [(7, 5), (16, 16)])
def test_small_tiles_change_nothing(rows: int, cols: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(1, 1, 60, 8), torch.randn(1, 1, 60, 8), torch.randn(1, 1, 60, 8)
    scoring = Scoring(0.3, Mask((Causal(), Window(20))))
    m = Call(q, k, fused_with_lse(q, k, v, scoring)[1], scoring, kind="decoder", layer=0, module="m").map(0)
    before = [m.pool(11, 13), m.pool(11, 13, "mean"), m.row_sums(), m.column_sums()], m.hottest(9)
    monkeypatch.setattr(derived, "ROWS", rows)
    monkeypatch.setattr(derived, "COLS", cols)
    after = [m.pool(11, 13), m.pool(11, 13, "mean"), m.row_sums(), m.column_sums()], m.hottest(9)
    for a, b in zip(before[0], after[0], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    assert [cell.weight for cell in after[1]] == pytest.approx([cell.weight for cell in before[1]], abs=1e-6)


def test_a_long_row_equals_float64() -> None:
    """T = 32,768, one head: rows within 1e-6 of the same numbers in float64; nothing T×T is made."""
    length, width = 32_768, 64
    q, k = torch.randn(1, 1, length, width), torch.randn(1, 1, length, width)
    scoring = Scoring(width**-0.5, Mask((Causal(),)))
    rows = [0, 1, 511, 16_000, length - 1]
    scores = (q[0, 0, rows].double() @ k[0, 0].double().T) * scoring.scale
    scores = scores.masked_fill(torch.arange(length)[None] > torch.tensor(rows)[:, None], -torch.inf)
    lse = torch.zeros(1, 1, length)
    lse[0, 0, rows] = scores.logsumexp(-1).float()
    m = Call(q, k, lse, scoring, kind="decoder", layer=0, module="long").map(0)
    for row, expected in zip(rows, scores.softmax(-1), strict=True):
        torch.testing.assert_close(m[row].double(), expected, atol=1e-6, rtol=0)


@pytest.fixture
def small() -> AttentionMap:
    q = torch.randn(1, 2, 6, 4)
    scoring = Scoring(0.5, Mask((Causal(),)))
    return Call(q, q, fused_with_lse(q, q, q, scoring)[1], scoring, kind="decoder", layer=3, module="m").map(1)


def test_it_behaves_like_an_array(small: AttentionMap) -> None:
    assert small.shape == (6, 6) and len(small) == 6 and small.ndim == 2
    assert np.asarray(small).shape == (6, 6)
    assert np.asarray(small, dtype=np.float16).dtype == np.float16
    torch.testing.assert_close(torch.stack(list(small)), small.dense())
    assert "decoder layer 3 head 1" in repr(small)


def test_what_lies_outside_is_refused(small: AttentionMap) -> None:
    for look in (
        lambda: small[6],
        lambda: small[-7],
        lambda: small[0, 6],
        lambda: small[0, 0, 0],
        lambda: small["a"],
        lambda: small.column(6),
        lambda: small.top(9),
    ):
        with pytest.raises(OutsideError) as caught:
            look()
        assert "\n" not in str(caught.value)
    with pytest.raises(IndexError):
        small[6]
    for wrong in (lambda: small.top(0, 0), lambda: small.pool(0, 3)):
        with pytest.raises(InputError):
            wrong()
    for index in (slice(None, None, 0), slice("a", None)):
        with pytest.raises(OutsideError):
            small[index]
    with pytest.raises(OutsideError):
        small.tile(range(-3, -1), range(6))


def test_a_released_map_says_so() -> None:
    q = torch.randn(1, 1, 3, 4)
    call = Call(q, q, torch.zeros(1, 1, 3), Scoring(1.0), kind="encoder", layer=0, module="m")
    m = call.map(0)
    call.release()
    with pytest.raises(ReleasedError, match="look again"):
        m[0]
    with pytest.raises(ClearheadError):
        call.map(0)
    assert call.nbytes == 0


def test_half_precision_keeps_its_own_numbers() -> None:
    q, k, v = (torch.randn(1, 2, 50, 16).bfloat16() for _ in range(3))
    scoring = Scoring(0.25, Mask((Causal(),)))
    _, lse = fused_with_lse(q, k, v, scoring)
    assert lse.dtype == torch.float32
    m = Call(q, k, lse, scoring, kind="decoder", layer=0, module="m").map(0)
    exact = attention_weights(q.double(), k.double(), scoring.mask, scoring.scale)[0, 0]
    torch.testing.assert_close(m.dense().double(), exact, atol=1e-4, rtol=0)  # the kernel's own 8 bits
