"""Every kind of row reads both ways."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearhead.checkpoint import rules
from clearhead.model import presets
from clearhead.model.config import AttentionConfig, ModelConfig

HEADS = [(1, 1), (2, 1), (4, 2), (6, 3), (4, 4)]


def config(heads: int, kv_heads: int, width: int) -> ModelConfig:
    return presets.llama(n_layers=1, n_heads=heads, n_kv_heads=kv_heads, d_model=heads * width, d_ff=4, vocab_size=9)


@given(st.sampled_from(HEADS), st.sampled_from([2, 4]), st.booleans(), st.booleans(), st.booleans())
def test_split_takes_our_sizes_and_gives_them_back(
    heads: tuple[int, int], width: int, transposed: bool, grouped: bool, bias: bool
) -> None:
    choice = config(*heads, width)
    rows = [heads[0] * width, heads[1] * width, heads[1] * width]
    like = tuple(torch.randn(size) if bias else torch.randn(size, choice.d_model) for size in rows)
    row = rules.Split("qkv", ("q", "k", "v"), transposed, rules.kv_heads if grouped else None)
    joined = row.join(like, choice)
    expected = (sum(rows),) if bias else (choice.d_model, sum(rows)) if transposed else (sum(rows), choice.d_model)
    assert joined.shape == expected == row.shape(like, choice)
    for part, original in zip(row.split(joined, like, choice), like, strict=True):
        assert torch.equal(part, original)


def test_a_split_by_heads_is_laid_out_as_neox_and_bloom_do() -> None:
    heads, width = 3, 2
    fused = torch.arange(heads * 3 * width).float()[:, None]
    like = (torch.empty(heads * width, 1),) * 3
    parts = rules.Split("qkv", ("q", "k", "v"), groups=rules.kv_heads).split(fused, like, config(heads, heads, width))
    want = fused.view(heads, 3, width).unbind(1)  # transformers' modeling_bloom: view(…, heads, 3, head_dim)
    assert all(torch.equal(part.flatten(), one.flatten()) for part, one in zip(parts, want, strict=True))


@given(st.sampled_from(HEADS), st.sampled_from([2, 4, 8]), st.sampled_from([rules.RotaryPairs, rules.Transposed]))
def test_rows_of_one_tensor_give_back_what_they_took(
    heads: tuple[int, int], width: int, kind: type[rules.Same]
) -> None:
    choice = config(*heads, width)
    tensor = torch.randn(heads[1] * width, choice.d_model)
    row = kind("theirs", "ours")
    theirs = row.join((tensor,), choice)
    assert torch.equal(row.split(theirs, (tensor,), choice)[0], tensor)
    assert torch.equal(row.join(row.split(theirs, (tensor,), choice), choice), theirs)


def test_rotary_pairs_give_the_same_scores() -> None:
    """A pair that lay side by side lies half a head apart: as gpt-fast's and Llama's converters have it."""
    choice = config(2, 2, 4)
    tensor = torch.arange(8.0)[:, None]
    apart = rules.RotaryPairs("theirs", "ours").split(tensor, (tensor,), choice)[0]
    assert apart.flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_leading_adds_and_takes_an_axis() -> None:
    row, choice = rules.Leading("theirs", "ours"), config(1, 1, 2)
    assert row.join((torch.zeros(5),), choice).shape == (1, 5)
    assert row.split(torch.zeros(1, 5), (torch.zeros(5),), choice)[0].shape == (5,)


def test_a_tensor_in_pieces_is_stacked_and_cut_again() -> None:
    row, ours, choice = rules.Stacked("norms.{piece}.weight", "norm.weight"), (torch.randn(3, 4),), config(1, 1, 2)
    assert row.names(ours) == ("norms.0.weight", "norms.1.weight", "norms.2.weight")
    pieces = tuple(row.piece(number, ours, choice) for number in range(3))
    assert all(piece.shape == row.shape(ours, choice) == (4,) for piece in pieces)
    assert torch.equal(row.gather(pieces, ours, choice)[0], ours[0])


@pytest.mark.parametrize("passes", [True, False])
def test_rows_under_a_condition(passes: bool) -> None:
    same = rules.Same("a", "b")
    assert rules.in_force((rules.When(lambda config: passes, same),), config(1, 1, 2)) == ((same,) if passes else ())


def test_layers_may_differ_in_their_heads() -> None:
    assert AttentionConfig(n_heads=4).kv_heads == 4
