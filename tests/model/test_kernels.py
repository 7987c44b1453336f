"""The equation and its twins: every fast path gives what softmax(QKᵀ·scale)V gives, for every mask, bias and shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clearhead.model import kernels
from clearhead.model.attention import Attention
from clearhead.model.config import AttentionConfig
from clearhead.model.kernels import Scoring, attention_weights, blockwise, equation, fused, fused_with_lse
from clearhead.model.masks import (
    Bias,
    BucketBias,
    Causal,
    Documents,
    KeyPadding,
    Mask,
    Prefix,
    Rule,
    SlopeBias,
    Table,
    TableBias,
    Window,
)
from clearhead.model.positions import alibi_slopes

TWINS: dict[str, Callable[..., Tensor]] = {
    "fused": fused,
    "blockwise": lambda *args, **rest: blockwise(*args, **rest)[0],
    "fused_with_lse": lambda *args, **rest: fused_with_lse(*args, **rest)[0],
}


# ── what hypothesis draws ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Drawn:
    """One call of attention, by its choices. `build` makes the tensors."""

    batch: int
    kv_heads: int
    groups: int
    tq: int
    tk: int
    width: int
    value_width: int | None
    offset: int
    rules: tuple[str, ...]
    biases: tuple[str, ...]
    scale: float
    softcap: float | None
    sinks: bool
    small_tiles: bool
    seed: int

    def build(self) -> Case:
        generator = torch.Generator().manual_seed(self.seed)

        def noise(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator) * 2 - 1

        def any_of(*shapes: tuple[int, ...]) -> Tensor:
            return noise(*shapes[self.seed % len(shapes)], tk)

        batch, tk, heads = self.batch, self.tk, self.kv_heads * self.groups
        queries = self.offset + self.tq  # rules speak of positions, and there are some before the first row
        texts = noise(batch, max(queries, tk)).mul(3).long().abs()
        tables = (1, 1, 1), (batch, 1, queries), (1, heads, queries), (batch, heads, 1), (batch, heads, queries)
        rules: dict[str, Rule] = {
            "causal": Causal(),
            "window": Window(1 + self.seed % 6),
            "padding": KeyPadding(noise(batch, tk) > -0.3),
            "documents": Documents(texts[:, :queries], texts[:, :tk]),
            "prefix": Prefix(noise(batch).mul(tk).long().abs()),
            "table": Table(any_of(*tables) > -0.5),
        }
        biases: dict[str, Bias] = {
            "slopes": SlopeBias(alibi_slopes(heads)),
            "buckets": BucketBias(noise(8, heads), self.seed % 2 == 0, 9),
            "table": TableBias(any_of(*tables)),
        }
        mask = Mask(tuple(rules[r] for r in self.rules), tuple(biases[b] for b in self.biases), self.offset)
        return Case(
            noise(batch, heads, self.tq, self.width),
            noise(batch, self.kv_heads, tk, self.width),
            noise(batch, self.kv_heads, tk, self.value_width if self.value_width is not None else self.width),
            Scoring(self.scale, mask, self.softcap, noise(heads) if self.sinks else None),
            self.small_tiles,
        )


def some(*names: str, most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), unique=True, max_size=most).map(tuple)


CASES = st.builds(
    Drawn,
    batch=st.integers(1, 2),
    kv_heads=st.integers(1, 2),
    groups=st.integers(1, 3),
    tq=st.integers(1, 9),
    tk=st.integers(1, 11),
    width=st.sampled_from([2, 4, 8]),
    value_width=st.sampled_from([None, None, 1, 6]),
    offset=st.sampled_from([0, 0, 1, 4]),
    rules=some("causal", "window", "padding", "documents", "prefix", "table", most=3),
    biases=some("slopes", "buckets", "table", most=2),
    scale=st.sampled_from([0.5, 1.0, 0.1]),
    softcap=st.sampled_from([None, None, 0.7, 30.0]),
    sinks=st.sampled_from([False, False, False, True]),
    small_tiles=st.booleans(),
    seed=st.integers(0, 2**32),
)


@dataclass(frozen=True)
class Case:
    """The tensors of one call of attention."""

    q: Tensor
    k: Tensor
    v: Tensor
    scoring: Scoring
    small_tiles: bool

    def to(self, dtype: torch.dtype) -> Case:
        return Case(self.q.to(dtype), self.k.to(dtype), self.v.to(dtype), self.scoring, self.small_tiles)

    def scores(self) -> Tensor:
        return self.scoring.scores(self.q, self.k, torch.arange(self.q.shape[2]), torch.arange(self.k.shape[2]))

    def lse(self) -> Tensor:
        """The log-sum-exp written down, sink included; 0 where nothing may be read."""
        scores = self.scores()
        if self.scoring.sinks is not None:
            scores = torch.cat((scores, self.scoring.sinks[None, :, None, None].expand(*scores.shape[:3], 1)), dim=-1)
        lse = scores.logsumexp(-1)
        return torch.where(lse == -math.inf, torch.zeros_like(lse), lse)


@contextmanager
def tiles(small: bool) -> Iterator[None]:
    """Tiles of a few cells, so that even a short text has many blocks of queries and of keys."""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(kernels, "MASK_CELLS", 24)
            patch.setattr(kernels, "ROWS", 3)
            patch.setattr(kernels, "COLS", 4)
        yield


# ── they agree ───────────────────────────────────────────────────────────────────────────────────────────────────


def assert_twins_agree(case: Case) -> None:
    args = case.q, case.k, case.v, case.scoring
    expected = equation(*args)
    weights = attention_weights(
        case.q, case.k, case.scoring.mask, case.scoring.scale, softcap=case.scoring.softcap, sinks=case.scoring.sinks
    )
    assert expected.isfinite().all() and weights.isfinite().all()
    reads_nothing = (case.scores() == -math.inf).all(-1)
    assert (expected[reads_nothing] == 0).all() and (weights[reads_nothing] == 0).all()
    with tiles(case.small_tiles):
        for name, twin in TWINS.items():
            torch.testing.assert_close(
                twin(*args), expected, rtol=0, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
            )
            assert (twin(*args)[reads_nothing] == 0).all(), name
        for with_lse in (blockwise, fused_with_lse):
            _, lse = with_lse(*args)
            torch.testing.assert_close(lse, case.lse(), rtol=0, atol=2e-6)
            derived = torch.exp(case.scores() - lse[..., None])
            torch.testing.assert_close(derived, weights, rtol=0, atol=1e-6)


@given(CASES)
@settings(max_examples=80)
def test_every_twin_agrees_with_the_equation(drawn: Drawn) -> None:
    assert_twins_agree(drawn.build())


@pytest.mark.slow
@given(CASES)
@settings(max_examples=2000)
def test_every_twin_agrees_with_the_equation_at_length(drawn: Drawn) -> None:
    assert_twins_agree(drawn.build())


@given(CASES)
def test_gradients_are_the_equations(drawn: Drawn) -> None:
    case = drawn.build().to(torch.float64)

    def gradients(kernel: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in (case.q, case.k, case.v)]
        sinks, biases = case.scoring.sinks, []
        if sinks is not None:
            leaves.append(sinks := sinks.double().requires_grad_())
        for bias in case.scoring.mask.biases:
            if isinstance(bias, TableBias | BucketBias):
                leaves.append(table := bias.table.double().requires_grad_())
                bias = TableBias(table) if isinstance(bias, TableBias) else BucketBias(table, bias.bidirectional, 9)
            biases.append(bias)
        mask = Mask(case.scoring.mask.rules, tuple(biases), case.scoring.mask.offset)
        out = kernel(*leaves[:3], Scoring(case.scoring.scale, mask, case.scoring.softcap, sinks))
        if not out.requires_grad:  # no key is in reach of any query: zeros, of nothing
            return [torch.zeros_like(leaf) for leaf in leaves]
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        found = torch.autograd.grad((out * weights).sum(), leaves, allow_unused=True)
        return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]

    expected = gradients(equation)
    assert all(g.isfinite().all() for g in expected)
    with tiles(case.small_tiles):
        for twin in TWINS.values():
            torch.testing.assert_close(gradients(twin), expected, rtol=1e-8, atol=1e-10)


@given(CASES, st.sampled_from([(torch.bfloat16, 2**-7), (torch.float16, 2**-9)]))
def test_half_precision_agrees_to_its_precision(drawn: Drawn, dtype: tuple[torch.dtype, float]) -> None:
    case = drawn.build()
    half = case.to(dtype[0])
    back = half.to(torch.float32)  # the same numbers, worked with in full
    expected = equation(back.q, back.k, back.v, back.scoring)
    with tiles(case.small_tiles):
        for twin in (equation, *TWINS.values()):
            out = twin(half.q, half.k, half.v, half.scoring)
            assert out.dtype == dtype[0]
            torch.testing.assert_close(out.float(), expected, rtol=0, atol=4 * dtype[1])


def test_the_equation_is_the_papers() -> None:
    """Against the formula written with loops: each query's weights, grouped heads, cap, bias and mask."""
    q, k, v = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 6)
    table = torch.randn(2, 4, 3, 5)
    allowed = torch.rand(2, 1, 3, 5) > 0.3
    scoring = Scoring(0.3, Mask((Table(allowed),), (TableBias(table),)), softcap=2.0)
    out = equation(q, k, v, scoring)
    for b in range(2):
        for h in range(4):
            for i in range(3):
                terms = []
                for j in range(5):
                    score = 2.0 * math.tanh(0.3 * float(q[b, h, i] @ k[b, h // 2, j]) / 2.0) + float(table[b, h, i, j])
                    terms.append(math.exp(score) if bool(allowed[b, 0, i, j]) else 0.0)
                expected = sum((t / (sum(terms) or 1.0) * v[b, h // 2, j] for j, t in enumerate(terms)), torch.zeros(6))
                torch.testing.assert_close(out[b, h, i], expected, rtol=0, atol=1e-6)


# ── long texts, tiles and memory ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [255, 257, 1025, 1300])
def test_twins_agree_past_their_tiles(length: int) -> None:
    q, k, v = torch.randn(1, 2, length, 8), torch.randn(1, 1, length, 8), torch.randn(1, 1, length, 8)
    scoring = Scoring(8**-0.5, Mask((Causal(), Window(300)), (SlopeBias(alibi_slopes(2)),)))
    expected = equation(q, k, v, scoring)
    for twin in TWINS.values():
        torch.testing.assert_close(twin(q, k, v, scoring), expected, rtol=0, atol=2e-6)


def test_no_mask_larger_than_the_limit_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    additive = Mask.additive

    def watched(self: Mask, *args: object, **rest: object) -> Tensor | None:
        tile = additive(self, *args, **rest)  # type: ignore[arg-type]
        written.append(tile.numel() if tile is not None else 0)
        return tile

    monkeypatch.setattr(Mask, "additive", watched)
    monkeypatch.setattr(kernels, "MASK_CELLS", 2**12)
    q = k = v = torch.randn(2, 2, 200, 4)
    real = torch.ones(2, 200, dtype=torch.bool)
    real[0, :5] = False
    for mask in (Mask((Causal(), KeyPadding(real))), Mask((Causal(), Window(20)), (SlopeBias(alibi_slopes(2)),))):
        for twin in (fused, fused_with_lse):
            twin(q, k, v, Scoring(0.5, mask))
    assert written and max(written) <= 2**12


def test_plain_causal_and_open_masks_are_not_written_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mask, "additive", lambda *_, **__: pytest.fail("a mask was written"))
    q = k = v = torch.randn(1, 2, 300, 4)
    for mask in (Mask(), Mask((Causal(),)), Mask((Causal(), Window(300)))):
        fused(q, k, v, Scoring(0.5, mask))
    fused(q[:, :, -1:], k, v, Scoring(0.5, Mask((Causal(),), offset=299)))  # a step of generation


# ── dropout, and what is kept ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kernel", [equation, *TWINS.values()], ids=["equation", *TWINS])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_dropout_keeps_the_mean(kernel: Callable[..., Tensor], softcap: float | None) -> None:
    q, k = torch.randn(1, 1, 2000, 4), torch.randn(1, 1, 64, 4)
    v = torch.ones(1, 1, 64, 4)
    out = kernel(q, k, v, Scoring(0.1, softcap=softcap), dropout=0.5)
    assert float(out.std()) > 0.05
    assert float(out.mean()) == pytest.approx(1.0, abs=0.02)


def test_dropout_leaves_the_log_sum_exp_alone() -> None:
    q = k = v = torch.randn(1, 2, 7, 4)
    scoring = Scoring(0.5, Mask((Causal(),)))
    torch.testing.assert_close(fused_with_lse(q, k, v, scoring, dropout=0.5)[1], fused_with_lse(q, k, v, scoring)[1])


def test_what_is_kept_does_not_change_with_the_weights() -> None:
    table, sinks = nn.Parameter(torch.zeros(8, 2)), nn.Parameter(torch.zeros(2))
    kept = Scoring(1.0, Mask((), (BucketBias(table, True, 9),)), sinks=sinks).kept()
    with torch.no_grad():
        table.add_(1.0)
        sinks.add_(1.0)
    assert kept.sinks is not None and float(kept.sinks.sum()) == 0
    assert float(kept.mask.bias(torch.arange(2), torch.arange(2)).sum()) == 0  # type: ignore[union-attr]


@given(CASES, st.integers(0, 5), st.integers(0, 1))
def test_the_scoring_of_one_head_is_that_heads_part(drawn: Drawn, head: int, batch: int) -> None:
    case = drawn.build()
    head, batch = head % case.q.shape[1], batch % case.q.shape[0]
    own_key = head // (case.q.shape[1] // case.k.shape[1])
    one = case.scoring.of(batch, head).scores(
        case.q[batch : batch + 1, head : head + 1],
        case.k[batch : batch + 1, own_key : own_key + 1],
        torch.arange(case.q.shape[2]),
        torch.arange(case.k.shape[2]),
    )
    torch.testing.assert_close(one[0, 0], case.scores()[batch, head])


# ── the module ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
@pytest.mark.parametrize("masked", ["open", "causal", "padding"])
def test_attention_is_torchs_own(cross: bool, masked: str) -> None:
    ours = Attention(AttentionConfig(n_heads=4), 32)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        for bias in (theirs.in_proj_bias, theirs.out_proj.bias):
            bias.normal_()
        for i, projection in enumerate((ours.q_proj, ours.k_proj, ours.v_proj)):
            projection.weight.copy_(theirs.in_proj_weight.chunk(3)[i])
            projection.bias.copy_(theirs.in_proj_bias.chunk(3)[i])
        ours.o_proj.load_state_dict(theirs.out_proj.state_dict())
    x = torch.randn(2, 7, 32)
    memory = torch.randn(2, 5, 32) if cross else x
    real = torch.ones(2, memory.shape[1], dtype=torch.bool)
    real[1, 3:] = False
    later = torch.ones(7, memory.shape[1], dtype=torch.bool).triu(1)
    rules = {"open": (), "causal": (Causal(),), "padding": (KeyPadding(real),)}
    expected, weights = theirs(
        x,
        memory,
        memory,
        attn_mask=later if masked == "causal" else None,
        key_padding_mask=~real if masked == "padding" else None,
        average_attn_weights=False,
    )
    out = ours(x, mask=Mask(rules[masked]), memory=memory if cross else None)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    q, k = ours._heads(ours.q_proj(x)), ours._heads(ours.k_proj(memory))
    torch.testing.assert_close(attention_weights(q, k, Mask(rules[masked])), weights, rtol=0, atol=1e-6)


# ── on an accelerator ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator here")
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize("queries", [1, 37, 128])
@pytest.mark.parametrize("rules", ["open", "causal", "padding", "window"])
def test_twins_agree_on_an_accelerator(dtype: torch.dtype, close: float, queries: int, rules: str) -> None:
    real = torch.ones(2, 128, dtype=torch.bool, device="cuda")
    real[0] = False
    real[1, :50] = False
    mask = {
        "open": Mask(),
        "causal": Mask((Causal(),), offset=128 - queries),
        "padding": Mask((Causal(), KeyPadding(real)), offset=128 - queries),
        "window": Mask((Causal(), Window(20)), (SlopeBias(alibi_slopes(4).cuda()),), offset=128 - queries),
    }[rules]
    q = torch.randn(2, 4, queries, 32, device="cuda", dtype=dtype)
    k, v = (torch.randn(2, 2, 128, 32, device="cuda", dtype=dtype) for _ in range(2))
    scoring = Scoring(32**-0.5, mask)
    expected, lse = blockwise(q, k, v, scoring)
    for twin in (equation, fused, lambda *args: fused_with_lse(*args)[0]):
        torch.testing.assert_close(twin(q, k, v, scoring), expected, rtol=0, atol=close)
    torch.testing.assert_close(fused_with_lse(q, k, v, scoring)[1], lse, rtol=0, atol=close)
