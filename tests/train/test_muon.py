"""Muon: updates whose directions all count alike, head by head; PyTorch's own where there are no heads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clearhead.train import muon
from clearhead.train.muon import Cut, Muon, orthogonal
from clearhead.train.optimiser import Muon as MuonChoice
from clearhead.train.optimiser import Optimisers
from tests.train.support import tiny


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.sampled_from(["rows", "columns"]), st.integers(1, 6), st.integers(1, 6))
def test_a_weight_that_is_taken_apart_is_put_together_again(n: int, along: str, rows: int, columns: int) -> None:
    weight = drawn(rows * n, columns) if along == "rows" else drawn(rows, columns * n)
    cut = Cut(n, along)  # type: ignore[arg-type]
    parts = cut.apart(weight)
    assert len(parts) == n and parts.shape[1] <= parts.shape[2]
    assert torch.equal(cut.together(parts, weight.shape), weight)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 12), (2, 8, 32), (1, 1, 5)])
def test_every_direction_counts_alike(shape: tuple[int, int, int]) -> None:
    x = drawn(*shape)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    found = orthogonal(x)
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    along = (u.mT @ found @ v.mT).diagonal(dim1=1, dim2=2)  # the same directions, none of them turned
    assert float(along.min()) > 0.6


def test_the_way_through_the_small_matrix_is_the_same() -> None:
    """In float64 the products are taken one after another, as they are written down: the slow twin."""
    x = drawn(4, 8, 40)
    torch.testing.assert_close(orthogonal(x), orthogonal(x.double()).float(), atol=2e-4, rtol=1e-3)


def test_nothing_to_follow_is_not_followed() -> None:
    assert not orthogonal(torch.zeros(2, 3, 9)).any() and not orthogonal(torch.zeros(2, 3, 3)).any()


def test_the_polynomials_bring_everything_near_one() -> None:
    values = torch.linspace(0.003, 1.0, 10_000, dtype=torch.float64)
    for a, b, c in muon.ROUNDS:
        values = a * values + b * values**3 + c * values**5
    assert float(values.min()) > 0.79 and float(values.max()) < 1.21


@pytest.mark.parametrize("shape", [(12, 12), (24, 8), (8, 24)])
def test_a_whole_matrix_is_moved_as_by_pytorch(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its polynomials; its products are taken in bfloat16, so they agree to about its 8 bits."""
    monkeypatch.setattr(muon, "ROUNDS", ((3.4445, -4.7750, 2.0315),) * 5)
    ours, theirs = nn.Parameter(drawn(*shape)), nn.Parameter(drawn(*shape))
    one = Muon([{"params": [ours]}], lr=0.02, momentum=0.95, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        ours.grad = drawn(*shape, seed=step + 1)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
    moved = (theirs - drawn(*shape)).norm()
    assert float((ours - theirs).detach().norm() / moved.detach()) < 0.03


def test_each_head_is_moved_by_itself() -> None:
    model = tiny()
    attention = model.decoder.blocks[0].attention  # two heads of width 8
    before = {name: weight.detach().clone() for name, weight in attention.named_parameters()}
    optimisers = Optimisers(model, MuonChoice(rate=1.0, weight_decay=0.0, momentum=0.0))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    attention.q_proj.weight.grad[:8] = 0.0
    optimisers.step(1.0)
    moved = {name: (before[name] - weight.detach()) / (0.2 * 16**0.5) for name, weight in attention.named_parameters()}
    assert not moved["q_proj.weight"][:8].any()
    for head in (moved["q_proj.weight"][8:], moved["v_proj.weight"][:8], moved["o_proj.weight"][:, :8]):
        values = torch.linalg.svdvals(head)
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3
