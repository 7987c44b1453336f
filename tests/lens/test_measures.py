"""Measures equal what they are defined as, written out over the whole table; heads made by hand do as they read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearhead.errors import InputError, OutsideError
from clearhead.lens.kept.call import Call
from clearhead.lens.look import look
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.measures.families import families
from clearhead.lens.measures.heads import HeadMeasures, Measures, measure, read
from clearhead.lens.measures.rollout import rollout, rollout_row
from clearhead.lens.measures.values import head_projection, value_weighted
from clearhead.lens.seen import Seen
from clearhead.lens.watch import watch
from clearhead.model.config import T5Bias
from clearhead.model.kernels import Scoring, blockwise
from clearhead.model.masks import Causal, Mask, Window
from tests.cli.small import SENTENCE, Small
from tests.lens.test_attention_map import BATCH, HEADS, PLANS, carry_out
from tests.model import tiny

FEW = settings(max_examples=25)


def seen_of(*calls: Call) -> Seen:
    seen = Seen()
    for call in calls:
        seen.record(call)
    return seen


def made(weights: Tensor) -> AttentionMap:
    """A map with just these weights, 0 to 1 in rows that sum to 1."""
    tq = len(weights)
    q, k = torch.eye(tq)[None, None], weights.clamp(min=1e-12).log().T[None, None]
    return AttentionMap(q, k.contiguous(), torch.zeros(1, 1, tq), Scoring(1.0), name="made")


def allowed_of(call: Call, batch: int, head: int) -> Tensor:
    i, j = torch.arange(call.shape[0]), torch.arange(call.shape[1])
    allowed = call.scoring.of(batch, head).mask.allowed(i, j)
    every = torch.ones(len(i), len(j), dtype=torch.bool)
    return every if allowed is None else allowed[0, 0].expand_as(every)


# ── one head, in one pass ────────────────────────────────────────────────────────────────────────────────────────


@FEW
@given(PLANS, st.data())
def test_a_reading_is_its_definition(plan: dict[str, Any], data: Any) -> None:
    call, dense = carry_out(plan)
    head, batch = data.draw(st.integers(0, HEADS - 1)), data.draw(st.integers(0, BATCH - 1))
    tq, tk = call.shape
    separators = data.draw(st.lists(st.integers(0, tk - 1), unique=True, max_size=3))
    first = data.draw(st.integers(0, tk - 1))
    reading = read(call.map(head, batch), separators=separators, first=first)
    a = dense[batch, head].double().numpy()
    allowed = allowed_of(call, batch, head).numpy()
    reads = allowed.any(1)
    sink = np.where(reads, np.clip(1 - a.sum(1), 0, None), 0.0) if plan["sinks"] else np.zeros(tq)
    whole = np.where(a.sum(1) + sink > 0, a.sum(1) + sink, 1.0)
    for i in range(tq):
        p = np.append(a[i], sink[i]) / whole[i]
        assert reading.entropy[i] == pytest.approx(-sum(x * math.log(x) for x in p if x > 0), abs=1e-4)
        distance = sum(a[i, j] * abs(i - j) for j in range(tk)) / (a[i].sum() or 1.0)
        assert reading.distance[i] == pytest.approx(distance, abs=1e-4)
        assert reading.sink[i] == pytest.approx(sink[i] / whole[i], abs=1e-5)
        for name, j in (("previous", i - 1), ("same", i), ("next", i + 1), ("first", first)):
            share = a[i, j] / whole[i] if 0 <= j < tk else 0.0
            assert getattr(reading, name)[i] == pytest.approx(share, abs=1e-5), name
        assert reading.separators[i] == pytest.approx(a[i, separators].sum() / whole[i], abs=1e-5)
    np.testing.assert_array_equal(reading.reads.numpy(), reads)
    np.testing.assert_array_equal(reading.readers.numpy(), allowed.sum(0))
    np.testing.assert_allclose(reading.received.numpy(), a.sum(0), atol=1e-4)
    if reads.any():
        assert reading.mean("entropy") == pytest.approx(float(reading.entropy[reads].mean()), abs=1e-5)


def test_several_tiles_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k = torch.randn(1, 1, 300, 8), torch.randn(1, 1, 300, 8)
    scoring = Scoring(0.5, Mask((Causal(),)))
    m = AttentionMap(q, k, blockwise(q, k, k, scoring)[1], scoring)
    whole = m.dense()
    reading = read(m)  # 300 queries are two tiles
    torch.testing.assert_close(reading.previous[1:], whole.diagonal(-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(reading.received, whole.sum(0), atol=1e-4, rtol=0)
    assert reading.readers.tolist() == [300 - j for j in range(300)]
    torch.testing.assert_close(reading.received_share, whole.sum(0) / reading.readers, atol=1e-5, rtol=0)


def test_heads_made_by_hand_measure_as_they_read() -> None:
    n = 10
    uniform = read(made(torch.full((n, n), 1 / n)))
    assert uniform.mean("entropy") == pytest.approx(math.log(n), abs=1e-5)
    assert uniform.mean("first") == pytest.approx(1 / n)
    shift = torch.roll(torch.eye(n), -1, dims=1)  # row i reads i − 1, the first reads the last
    previous = read(made(shift))
    assert float(previous.previous[1:].min()) > 0.999 and previous.mean("entropy") < 1e-4
    assert previous.mean("distance") == pytest.approx((9 * 1 + 9) / 10, abs=1e-3)
    first = torch.zeros(n, n)
    first[:, 0] = 1.0
    resting = read(made(first), separators=[0])
    assert resting.mean("first") == pytest.approx(1.0) == pytest.approx(resting.mean("separators"))
    assert float(resting.received_share[0]) == pytest.approx(1.0)


def test_rows_that_arrive_later_stand_where_they_stand() -> None:
    q, k = torch.randn(1, 1, 2, 8), torch.randn(1, 1, 6, 8)
    scoring = Scoring(1.0, Mask((Causal(),), offset=4))
    m = AttentionMap(q, k, blockwise(q, k, k, scoring)[1], scoring)
    reading = read(m)
    assert reading.previous.tolist() == pytest.approx([float(m[0, 3]), float(m[1, 4])], abs=1e-6)
    assert reading.same.tolist() == pytest.approx([float(m[0, 4]), float(m[1, 5])], abs=1e-6)


def test_a_key_that_is_not_there() -> None:
    with pytest.raises(OutsideError, match="choose 0…4"):
        read(made(torch.eye(5)), separators=[5])


# ── every head ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_of_all_heads() -> None:
    seen = look(Small("encoder", tiny.encoder()), SENTENCE)
    table = measure(seen)
    assert len(table) == 8 and isinstance(table[0], HeadMeasures) and isinstance(table[:3], Measures)
    last = len(seen.tokens) - 1
    expected = read(seen.map(1, 2), separators=[last])
    row = table[6]
    assert isinstance(row, HeadMeasures) and (row.layer, row.head) == (1, 2)
    assert row.separators == pytest.approx(expected.mean("separators"))  # [SEP], and not [CLS], which is the first
    assert row.entropy == pytest.approx(expected.mean("entropy"))
    assert list(table.to_dict()) == list(table.to_rows()[0]) and len(table.to_dict()["head"]) == 8
    lines = str(table).splitlines()
    assert lines[0].split()[:3] == ["head", "entropy", "distance"] and len(lines) == 9
    best = table.best("entropy")[0]
    assert isinstance(best, HeadMeasures) and best.entropy == max(table.to_dict()["entropy"])  # type: ignore[type-var]


def test_cross_attention_has_no_distance() -> None:
    seen = look(Small("buckets", tiny.translator()), SENTENCE, "a dog ran")
    table = measure(seen)
    assert {row.kind for row in table} == {"encoder", "decoder", "cross"}
    for row in table:
        assert (row.distance is None) == (row.kind == "cross")
    assert "–" in str(table)
    assert len(measure(seen, "cross")) == 8


# ── what is moved ────────────────────────────────────────────────────────────────────────────────────────────────


@FEW
@given(PLANS, st.booleans())
def test_value_weighted_norms(plan: dict[str, Any], projected: bool) -> None:
    call, dense = carry_out(plan)
    m, a = call.map(1, 0), dense[0, 1]
    v, w = torch.randn(m.shape[1], 6), torch.randn(5, 6) if projected else None
    moved = a[:, :, None] * (v @ w.T if w is not None else v)[None]  # the vector that each key gives each query
    norms = moved.norm(dim=-1)
    weighted = value_weighted(m, v, w)
    whole = weighted.tile(range(m.shape[0]), range(m.shape[1]))
    torch.testing.assert_close(whole, norms, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weighted.row(0), norms[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read(weighted).received, norms.sum(0), atol=1e-4, rtol=1e-4)
    total = norms.sum(1)
    shares = torch.where(total > 0, norms[:, 0] / total.clamp(min=1e-12), 0.0)
    torch.testing.assert_close(read(weighted).first, shares, atol=1e-4, rtol=1e-3)


def test_a_head_that_rests_moves_nothing() -> None:
    """All weight on the first token, whose value has no length: nothing comes of it (Kobayashi et al. 2020, §4)."""
    weights = torch.tensor([[0.9, 0.1, 0.0]] * 3)
    v = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
    weighted = value_weighted(made(weights), v)
    assert read(made(weights)).mean("first") == pytest.approx(0.9)
    assert read(weighted).mean("first") == 0.0 and float(weighted.row(0)[1]) == pytest.approx(0.5)


def test_values_come_with_receipts() -> None:
    model = tiny.encoder()
    with torch.inference_mode(), watch(model, receipts=True) as seen:
        model(tiny.ids(1, 9))
    m = seen.map(1, 2)
    assert m.shown is not None
    own = value_weighted(m, projection=head_projection(model, 1, 2))
    given = value_weighted(m, m.shown[0], head_projection(model, 1, 2))
    torch.testing.assert_close(own.row(3), given.row(3))
    with pytest.raises(InputError, match="receipts=True"):
        value_weighted(made(torch.eye(3)))


def test_the_projection_of_a_head_gives_its_part_of_the_layer() -> None:
    model = tiny.encoder()
    attention = model.encoder.block(1).attention
    x = torch.randn(4 * attention.d_head)
    parts = [head_projection(model, 1, h) @ x[h * attention.d_head : (h + 1) * attention.d_head] for h in range(4)]
    torch.testing.assert_close(sum(parts), attention.o_proj.weight @ x)
    with pytest.raises(OutsideError, match="choose 0…3"):
        head_projection(model, 0, 4)
    with pytest.raises(OutsideError, match="no layer 2"):
        head_projection(model, 2, 0)
    with pytest.raises(InputError, match="one for each key"):
        value_weighted(made(torch.eye(3)), torch.zeros(2, 4))


# ── rollout ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", [tiny.encoder(), tiny.decoder()], ids=["encoder", "decoder"])
def test_rollout_is_the_product_of_the_layers(model: Any) -> None:
    with torch.inference_mode(), watch(model) as seen:
        model(tiny.ids(1, 30))
    expected = torch.eye(30)
    for layer in range(2):
        mean = torch.stack([seen.map(layer, head).dense() for head in range(4)]).mean(0)
        expected = (0.5 * mean + 0.5 * torch.eye(30)) @ expected
    result = rollout(seen)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.sum(1), torch.ones(30), atol=1e-5, rtol=0)
    for i in (0, 7, 29):
        torch.testing.assert_close(rollout_row(seen, i), expected[i], atol=1e-5, rtol=0)
    with pytest.raises(OutsideError, match="choose 0…29"):
        rollout_row(seen, 30)
    with pytest.raises(OutsideError, match="choose 0…1"):
        rollout(seen, layer=2)


def test_rollout_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearhead.lens.measures import rollout as module

    monkeypatch.setattr(module, "LARGEST", 10)
    model = tiny.encoder()
    with torch.inference_mode(), watch(model) as seen:
        model(tiny.ids(1, 11))
    with pytest.raises(InputError, match="rollout_row"):
        rollout(seen)
    assert rollout_row(seen, 3).shape == (11,)


# ── families ─────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=15)
@given(PLANS)
def test_distances_are_jensen_shannon(plan: dict[str, Any]) -> None:
    call, dense = carry_out(plan)
    found = families(seen_of(call), batch=1)
    full = dense[1].double()
    reads = allowed_of(call, 1, 0)
    if plan["sinks"]:
        full = torch.cat((full, (1 - full.sum(-1, keepdim=True)).clamp(min=0)), dim=-1)
    if plan["padding"] and call.shape[0] <= call.shape[1]:  # padding does not read either
        full = full * call.scoring.mask.rules[0].real[1, : call.shape[0], None]  # type: ignore[attr-defined]
    for a in range(HEADS):
        for b in range(HEADS):
            middle = (full[a] + full[b]) / 2
            js = torch.special.entr(middle) - (torch.special.entr(full[a]) + torch.special.entr(full[b])) / 2
            rows = int((full.sum(-1) > 0.5).any(0).sum())
            assert float(found.distances[a, b]) == pytest.approx(float(js.sum()) / max(1, rows), abs=1e-5)
    assert reads.shape == call.shape
    assert float(found.distances.max()) <= math.log(2) + 1e-6


def test_blocks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearhead.lens.measures import families as module

    model = tiny.decoder()
    with torch.inference_mode(), watch(model) as seen:
        model(tiny.ids(1, 40))
    whole = families(seen).distances
    monkeypatch.setattr(module, "CELLS", 8 * 40 * 3)  # three rows at a time
    torch.testing.assert_close(families(seen).distances, whole, atol=1e-6, rtol=0)


def test_layers_that_reach_differently_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer with a window and one without, as Gemma 2 has them, in more than one block of rows."""
    from clearhead.lens.measures import families as module

    q, k = torch.randn(2, 1, 2, 90, 8), torch.randn(2, 1, 2, 90, 8)
    rules = ((Causal(), Window(8)), (Causal(),))
    calls, dense = [], []
    for layer in (0, 1):
        sinks = torch.randn(2) if layer else None  # and one has learned sinks, the other none
        scoring = Scoring(0.5, Mask(rules[layer]), sinks=sinks)
        lse = blockwise(q[layer], k[layer], k[layer], scoring)[1]
        calls.append(Call(q[layer], k[layer], lse, scoring, kind="decoder", layer=layer, module=""))
        weights = torch.stack([calls[-1].map(head).dense() for head in (0, 1)])
        sink = (1 - weights.sum(-1, keepdim=True)).clamp(min=0) if layer else torch.zeros(2, 90, 1)
        dense.append(torch.cat((weights, sink), dim=-1))
    monkeypatch.setattr(module, "CELLS", 4 * 90 * 7)  # seven rows at a time
    found, full = families(seen_of(*calls)), torch.cat(dense)
    entropy = torch.special.entr
    for a in range(4):
        for b in range(4):
            js = entropy((full[a] + full[b]) / 2) - (entropy(full[a]) + entropy(full[b])) / 2
            assert float(found.distances[a, b]) == pytest.approx(float(js.sum()) / 90, abs=1e-5)


def test_what_was_kept_of_a_model_is_measured() -> None:
    model = tiny.decoder()
    with torch.inference_mode(), watch(model) as every:
        model(tiny.ids(1, 12))
    with torch.inference_mode(), watch(model, layers=[1], heads=[1, 2]) as some:
        model(tiny.ids(1, 12))
    assert measure(some).to_rows() == measure(every).to_rows()[5:7]
    found = families(some)
    assert found.heads == ((1, 1), (1, 2))
    assert float(found.distances[0, 1]) == pytest.approx(float(families(every).distances[5, 6]), abs=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("build", [tiny.encoder, tiny.decoder, tiny.translator], ids=["encoder", "decoder", "both"])
def test_padding_is_not_measured(build: Any, side: str) -> None:
    """A text of 6 tokens beside one of 30 measures as it does alone: padding neither reads nor is read."""
    model, ids = build(T5Bias(buckets=8, max_distance=20)), tiny.ids(2, 30)
    at = slice(24, 30) if side == "left" else slice(0, 6)
    real = torch.ones(2, 30, dtype=torch.bool)
    real[1] = False
    real[1, at] = True
    own = (tiny.ids(1, 5),) if build is tiny.translator else ()
    with torch.inference_mode(), watch(model) as both:
        model(ids, *(x.expand(2, -1) for x in own), attention_mask=real)
    with torch.inference_mode(), watch(model) as alone:
        model(ids[1:, at], *own)
    rows, expected = measure(both, batch=1).to_rows(), measure(alone).to_rows()
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        shift = 0 if own and row["kind"] == "decoder" else at.start
        assert row.pop("most_read") == other.pop("most_read") + shift  # type: ignore[operator]
        assert row == pytest.approx(other, abs=1e-4)
    for kind in both.kinds:
        close = families(both, kind, batch=1).distances
        torch.testing.assert_close(close, families(alone, kind).distances, atol=1e-5, rtol=0)


def test_the_plane_keeps_distances() -> None:
    """Three heads that read three places, each in its own way: a triangle with equal sides √ln 2."""
    maps = [torch.zeros(4, 4) for _ in range(3)]
    for at, weights in enumerate(maps):
        weights[:, at] = 1.0
    calls = []
    for layer, weights in enumerate(maps):
        m = made(weights)
        calls.append(Call(m.q, m.k, m.lse, Scoring(1.0), kind="encoder", layer=layer, module="made"))
    found = families(seen_of(*calls))
    points = found.embed()
    sides = [np.linalg.norm(points[a] - points[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert sides == pytest.approx([math.sqrt(math.log(2))] * 3, abs=1e-4)
    assert found.nearest(0, 0, 1)[0][2] == pytest.approx(math.log(2), abs=1e-5)
    with pytest.raises(InputError, match="not among"):
        found.nearest(7, 0)


def test_the_picture_of_the_families(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    model = tiny.decoder()
    with torch.inference_mode(), watch(model) as seen:
        model(tiny.ids(1, 12))
    path = families(seen).picture(tmp_path / "families.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="name the picture so"):
        families(seen).picture(tmp_path / "families.txt")
