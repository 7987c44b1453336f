"""Masks against their sentences: each rule and bias, written with loops over i and j."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearhead.model.masks import (
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
    additive_table,
)

B, T = 2, 12
REAL = torch.tensor([[0, 0, 0] + [1] * 9, [1] * 7 + [0] * 5]).bool()
TEXTS = torch.tensor([[0] * 4 + [1] * 8, [5] * 1 + [2] * 6 + [5] * 5])
LENGTHS = torch.tensor([0, 4])
WRITTEN = torch.rand(B, 1, T, T, generator=torch.Generator().manual_seed(0)) > 0.4

RULES: dict[str, tuple[Rule, Callable[[int, int, int], bool]]] = {
    "causal": (Causal(), lambda b, i, j: j <= i),
    "window": (Window(3), lambda b, i, j: abs(i - j) < 3),
    "window of one": (Window(1), lambda b, i, j: i == j),
    "padding": (KeyPadding(REAL), lambda b, i, j: bool(REAL[b, j])),
    "documents": (Documents(TEXTS, TEXTS), lambda b, i, j: bool(TEXTS[b, i] == TEXTS[b, j])),
    "prefix": (Prefix(LENGTHS), lambda b, i, j: j <= i or j < int(LENGTHS[b])),
    "table": (Table(WRITTEN), lambda b, i, j: bool(WRITTEN[b, 0, i, j])),
}


def whole(mask: Mask, rows: int, keys: int) -> torch.Tensor:
    allowed = mask.allowed(torch.arange(rows), torch.arange(keys))
    return torch.ones(B, 1, rows, keys).bool() if allowed is None else allowed.expand(B, -1, rows, keys)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("offset", [0, 5])
def test_a_rule_is_its_sentence(name: str, offset: int) -> None:
    rule, sentence = RULES[name]
    tile = whole(Mask((rule,), offset=offset), T - offset, T)
    for b in range(B):
        for i in range(T - offset):
            for j in range(T):
                assert bool(tile[b, 0, i, j]) == sentence(b, i + offset, j), (b, i, j)


@given(
    names=st.lists(st.sampled_from(list(RULES)), unique=True, max_size=3),
    offset=st.integers(0, 5),
    rows=st.tuples(st.integers(0, 6), st.integers(1, 6)),
    keys=st.integers(1, T),
)
def test_what_a_mask_says_without_looking_is_true(
    names: list[str], offset: int, rows: tuple[int, int], keys: int
) -> None:
    mask = Mask(tuple(RULES[name][0] for name in names), offset=offset)
    span = range(min(rows[0], T - offset - 1), min(rows[0] + rows[1], T - offset))
    tile = whole(mask, span.stop, keys)[:, :, span.start :]
    reach = mask.reach(span, keys)
    inside = torch.zeros(keys).bool()
    inside[reach.start : reach.stop] = True
    assert not tile[..., ~inside].any(), "a key outside the reach is read"
    if mask.is_open(span, keys):
        assert tile.all()
    if mask.is_causal(span, keys):
        assert torch.equal(tile[0, 0], torch.ones(len(span), keys).tril().bool())
        assert len(span) == keys


def test_what_it_can_say_it_does_say() -> None:
    whole_text = range(T)
    assert Mask().is_open(whole_text, T)
    assert Mask((Window(T),)).is_open(whole_text, T) and not Mask((Window(T - 1),)).is_open(whole_text, T)
    assert Mask((Causal(),), offset=T - 1).is_open(range(1), T)
    assert Mask((Causal(),)).is_causal(whole_text, T) and Mask((Causal(), Window(T))).is_causal(whole_text, T)
    assert not Mask((Causal(), Window(T - 1))).is_causal(whole_text, T)
    assert not Mask((Causal(),), (SlopeBias(torch.ones(1)),)).is_causal(whole_text, T)
    assert Mask((Causal(), Window(3))).reach(range(5, 7), T) == range(3, 7)


@pytest.mark.parametrize("name", RULES)
def test_any_tile_is_that_part_of_the_whole(name: str) -> None:
    mask = Mask((RULES[name][0],), (SlopeBias(torch.tensor([0.5, 0.1])), TableBias(torch.randn(B, 2, T, T))))
    full = mask.additive(range(T), range(T), dtype=torch.float32, device=torch.device("cpu"))
    tile = mask.additive(range(3, 8), range(2, 9), dtype=torch.float32, device=torch.device("cpu"))
    assert full is not None and tile is not None
    assert torch.equal(tile, full[:, :, 3:8, 2:9])
    for b in range(B):
        for h in range(2):
            one = mask.of(b, h).additive(range(3, 8), range(2, 9), dtype=torch.float32, device=torch.device("cpu"))
            assert one is not None and torch.equal(one[0, 0], full[min(b, full.shape[0] - 1), h, 3:8, 2:9])


def test_rules_must_all_agree_and_biases_add_up() -> None:
    slopes, table = SlopeBias(torch.tensor([0.5])), TableBias(torch.randn(1, 1, T, T))
    mask = Mask().and_(Causal()).and_(Window(3)).plus(slopes).plus(table)
    tile = mask.additive(range(T), range(T), dtype=torch.float32, device=torch.device("cpu"))
    assert tile is not None
    for i in range(T):
        for j in range(T):
            expected = -0.5 * abs(i - j) + float(table.table[0, 0, i, j]) if 0 <= i - j < 3 else -math.inf
            assert float(tile[0, 0, i, j]) == pytest.approx(expected, abs=1e-6)


def test_a_trained_bias_is_written_anew_and_a_fixed_one_once() -> None:
    table = torch.zeros(8, 1, requires_grad=True)
    trained = Mask((Causal(),), (BucketBias(table, False, 20),))
    cpu = torch.device("cpu")
    assert trained.needs_grad and not trained.kept().needs_grad
    assert trained.additive(range(T), range(T), dtype=torch.float32, device=cpu).requires_grad  # type: ignore[union-attr]
    fixed = Mask((Causal(),))
    first = fixed.additive(range(T), range(T), dtype=torch.float32, device=cpu)
    assert fixed.additive(range(T), range(T), dtype=torch.float32, device=cpu) is first


def test_a_float_mask_from_elsewhere_becomes_a_rule_and_a_bias() -> None:
    lowest = torch.finfo(torch.float32).min
    table = torch.tensor([[[[0.0, -1.5, lowest], [lowest, 0.0, -math.inf]]]])
    rules, biases = additive_table(table)
    mask = Mask(tuple(rules), tuple(biases))
    tile = mask.additive(range(2), range(3), dtype=torch.float32, device=torch.device("cpu"))
    assert tile is not None and tile.tolist() == [[[[0.0, -1.5, -math.inf], [-math.inf, 0.0, -math.inf]]]]
    assert additive_table(torch.zeros(1, 1, 2, 2))[1] == []
