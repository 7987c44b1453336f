"""Which parameter is updated by what; the schedules' shapes; the precision that is chosen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearhead.errors import CheckpointError, ConfigError
from clearhead.train.optimiser import AdamW, Muon, Optimisers, clip, parts_of
from clearhead.train.precision import choose, flops_per_token, peak_of
from clearhead.train.schedules import Constant, Cosine, InverseSquareRoot, Schedule, WarmupStableDecay
from tests.train.support import tiny


def test_every_parameter_has_one_part() -> None:
    model = tiny()
    parts = parts_of(model)
    names = [name for part in parts.values() for name in part]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert set(parts["tables"]) == {"decoder.embedding.tokens.weight", "decoder.embedding.positions.weight"}
    assert all(p.ndim == 2 for p in parts["matrices"].values()) and all(p.ndim == 1 for p in parts["rest"].values())


def test_frozen_parameters_are_left_out() -> None:
    model = tiny()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name == "decoder.norm.weight"
    assert list(parts_of(model)["rest"]) == ["decoder.norm.weight"]
    Optimisers(model, Muon())
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        parts_of(model)


def test_decay_pulls_on_matrices_and_tables_only() -> None:
    model = tiny()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimisers = Optimisers(model, AdamW(rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimisers.step(1.0)
    for name, value in model.named_parameters():
        expected = before[name] * (0.95 if value.ndim == 2 else 1.0)
        torch.testing.assert_close(value, expected)


def test_muon_makes_updates_orthogonal() -> None:
    model = tiny()
    optimisers = Optimisers(model, Muon(rate=1.0, weight_decay=0.0, momentum=0.0))
    assert "Muon of" in repr(optimisers) and "AdamW of" in repr(optimisers)
    name = "decoder.blocks.0.feedforward.up.weight"  # of attention each head is a matrix: see test_muon.py
    matrix = parts_of(model)["matrices"][name]
    before = matrix.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimisers.step(1.0)
    update = (before - matrix.detach()) / (0.2 * max(matrix.shape) ** 0.5)
    values = torch.linalg.svdvals(update)
    assert float(values.min()) > 0.4 and float(values.max()) < 1.4, name


def test_a_state_of_other_parameters_is_refused() -> None:
    model = tiny()
    optimisers = Optimisers(model, AdamW())
    with pytest.raises(CheckpointError, match="'nobody'"):
        optimisers.load_state({"exp_avg/nobody": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="another model"):
        optimisers.load_state({"exp_avg/decoder.norm.weight": torch.zeros(1)})


@pytest.mark.parametrize("fused", [False, True])
def test_a_fused_optimiser_counts_where_its_parameters_are(fused: bool) -> None:
    """Wherever its steps were read to. On a GPU it would fail else."""
    optimisers = Optimisers(tiny().to("meta"), AdamW())
    for group in optimisers._each[0].param_groups:
        group["fused"] = fused
    optimisers.load_state(
        {"step/decoder.norm.weight": torch.tensor(3.0), "exp_avg/decoder.norm.weight": torch.ones(16)}
    )
    [found] = [each for each in optimisers._each[0].state.values() if each]
    assert found["step"].device.type == ("meta" if fused else "cpu") and found["exp_avg"].device.type == "meta"


def test_what_is_clipped_is_what_is_trained() -> None:
    model = tiny()
    frozen = model.decoder.norm.weight.requires_grad_(False)
    for choice in (AdamW(), Muon()):
        found = {id(parameter) for parameter in Optimisers(model, choice).parameters}
        assert found == {id(p) for p in model.parameters()} - {id(frozen)}


def test_clip() -> None:
    model = tiny()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    n = sum(p.numel() for p in model.parameters())
    assert clip(model.parameters(), None).item() == pytest.approx(n**0.5)
    assert clip(model.parameters(), 1.0).item() == pytest.approx(n**0.5)
    assert clip(model.parameters(), None).item() == pytest.approx(1.0, rel=1e-5)


@given(
    st.sampled_from([Constant(warmup=7), Cosine(warmup=7), WarmupStableDecay(warmup=7), InverseSquareRoot(warmup=7)]),
    st.integers(10, 500),
)
def test_schedules(schedule: Schedule, steps: int) -> None:
    factors = [schedule.factor(step, steps) for step in range(steps)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] == pytest.approx(1 / 7) and factors[:7] == sorted(factors[:7])
    later = factors[7:]
    assert later == sorted(later, reverse=True)
    if isinstance(schedule, Cosine):
        assert factors[-1] == pytest.approx(0.1)
    if isinstance(schedule, WarmupStableDecay):
        assert factors[-1] == pytest.approx(0.0)
    if isinstance(schedule, InverseSquareRoot) and steps > 28:
        assert schedule.factor(27, steps) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", [Constant, Cosine, WarmupStableDecay])
def test_a_warm_up_may_be_a_share_of_the_run(kind: type[Constant] | type[Cosine] | type[WarmupStableDecay]) -> None:
    for share, steps, number in ((0.05, 200, 10), (0.5, 30, 15), (0.001, 100, 0)):
        asked, meant = kind(warmup=share), kind(warmup=number)
        assert [asked.factor(n, steps) for n in range(steps)] == [meant.factor(n, steps) for n in range(steps)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Constant(warmup=-1),
        lambda: Constant(warmup=2.5),
        lambda: Constant(warmup=float("nan")),
        lambda: Cosine(warmup=float("inf")),
        lambda: Cosine(floor=2.0),
        lambda: InverseSquareRoot(warmup=0),
    ],
)
def test_schedules_that_cannot_be(wrong: object) -> None:
    with pytest.raises(ConfigError):
        wrong()  # type: ignore[operator]


def test_the_precision_says_why() -> None:
    cpu = torch.device("cpu")
    assert choose("float32", cpu).dtype == torch.float32 and choose("bfloat16", cpu).name == "bfloat16"
    assert "× as quick" in choose("auto", cpu).why
    assert peak_of(cpu, torch.float32).flops > 1e8 and "processor" in peak_of(cpu, torch.float32).source
    assert flops_per_token(100, 2, 8, 16, causal=True) == 600 + 12 * 2 * 8 * 8
