"""The loop: what a step does, that parts add up, that a run goes on bit for bit, and what becomes of a bad step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clearhead.errors import CheckpointError, ConfigError, TrainingError
from clearhead.train import state
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.loop import Loop, Trainer, mean_loss
from clearhead.train.optimiser import AdamW, Muon
from clearhead.train.precision import Chosen
from clearhead.train.schedules import Constant
from tests.train.support import VOCAB, Random, tiny

PLAIN = Chosen(torch.float32, "a test")


def trainer(batches: object = None, *, dropout: float = 0.0, **how: object) -> Trainer:
    loop = Loop(**{"steps": 6, "schedule": Constant(), "optimiser": AdamW(), **how})  # type: ignore[arg-type]
    return Trainer(tiny(dropout=dropout), batches or Random(), loop, precision=PLAIN)  # type: ignore[arg-type]


def weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in one.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_first_step_is_adamw_by_hand() -> None:
    one = trainer(clip=None, optimiser=AdamW(rate=1e-2, weight_decay=0.0))
    before = weights(one)
    batch = Random().at(0)[0]
    logits = one.model(**batch.inputs).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
    grads = dict(
        zip(
            [name for name, _ in one.model.named_parameters()],
            torch.autograd.grad(loss, list(one.model.parameters())),
            strict=True,
        )
    )
    told = one.step()
    assert told.loss == pytest.approx(loss.item(), rel=1e-6) and told.step == 0 and told.n_tokens == 8 * 12
    assert told.norm == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in grads.values())), rel=1e-5)
    for name, after in one.model.named_parameters():
        grad = grads[name]
        expected = before[name] - 1e-2 * grad / (grad.abs() + 1e-8)  # Adam's first step: bias-corrected, m̂ = g, v̂ = g²
        torch.testing.assert_close(after.detach(), expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("ignored", [0.0, 0.6])
def test_accumulation_does_not_change_the_loss(ignored: float) -> None:
    """Also where the parts have unequal numbers of labels, which a mean of means would get wrong."""
    whole, parts = trainer(Random(ignored=ignored)), trainer(Random(parts=4, ignored=ignored))
    for a, b in zip(whole.steps(), parts.steps(), strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-6) and a.norm == pytest.approx(b.norm, rel=1e-4)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("optimiser", [AdamW(), Muon()])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path, optimiser: AdamW | Muon, parts: int) -> None:
    straight = trainer(Random(parts=parts), dropout=0.2, optimiser=optimiser)
    losses = [step.loss for step in straight.steps()]
    first = trainer(Random(parts=parts), dropout=0.2, optimiser=optimiser)
    begun = [first.step().loss for _ in range(3)]
    first.save(tmp_path)
    torch.manual_seed(99)  # another process has other generators
    again = trainer(Random(parts=parts), dropout=0.2, optimiser=optimiser)
    folder = state.newest(tmp_path)
    assert folder is not None
    again.resume(folder)
    rest = [step.loss for step in again.steps()]
    assert begun + rest == losses
    assert same(weights(straight), weights(again))
    assert again.n_tokens == straight.n_tokens and again.batches.asked == [-1, -1, -1, 3, 4, 5]  # type: ignore[attr-defined]


class Poisoned(Random):
    """One step whose loss is no number, as a bad row would make it."""

    def __init__(self, trainer_of: list[Trainer], at: int) -> None:
        super().__init__()
        self.trainer_of, self.bad = trainer_of, at

    def at(self, step: int) -> Sequence[Batch]:
        if step != self.bad:
            return super().at(step)
        part = super().at(step)[0]
        return [Batch(inputs=part.inputs, labels=torch.full((8, VOCAB), math.nan), rows=part.rows)]


class Sums(torch.nn.Module):
    """A model whose logits at one step are no numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls, self.bad = tiny(), 0, 2

    def forward(self, **inputs: torch.Tensor) -> object:
        output = self.inner(**inputs)
        self.calls += 1
        if self.calls == self.bad + 1:
            output.logits.data.mul_(math.nan)
        return output


class Lost(Sums):
    """From that step on, all of them."""

    def forward(self, **inputs: torch.Tensor) -> object:
        self.bad = max(self.bad, self.calls)
        return super().forward(**inputs)


def test_a_run_that_has_diverged_stops_and_keeps_what_was_good(tmp_path: Path) -> None:
    one = Trainer(Lost(), Random(), Loop(steps=99), precision=PLAIN)
    one.step(), one.step()
    good = one.save(tmp_path)
    assert one.sound
    taken = []
    with pytest.raises(
        TrainingError, match=r"step 21 .* loss is nan, and so it was in the 19 steps before: the run has"
    ):
        for step in one.steps():
            taken.append(step.step)
    assert taken == list(range(2, 21)) and not one.sound and all(p.grad is None for p in one.model.parameters())
    with pytest.raises(TrainingError, match=r"step 21 is not saved, for the last 20 had no loss: the run has diverged"):
        one.save(tmp_path)
    assert list(tmp_path.iterdir()) == [good]


@pytest.mark.parametrize("checkpoints", [state.Whole(), state.Sharded()])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, checkpoints: state.Whole | state.Sharded) -> None:
    one = trainer(checkpoints=checkpoints)
    one.step()
    one.model.decoder.norm.weight.data[3] = math.inf  # type: ignore[union-attr]
    with pytest.raises(
        TrainingError, match=r"step 1 is not saved, for its decoder\.norm\.weight is not all numbers: the"
    ):
        one.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimiser", [AdamW(), Muon()])
def test_a_run_on_a_gpu_goes_on(tmp_path: Path, optimiser: AdamW | Muon) -> None:
    def one() -> Trainer:
        loop = Loop(steps=6, schedule=Constant(), optimiser=optimiser)
        return Trainer(tiny().cuda(), Random(), loop, precision=PLAIN)

    straight, first, again = one(), one(), one()
    losses = [step.loss for step in straight.steps()]
    for _ in range(3):
        first.step()
    again.resume(first.save(tmp_path))
    assert [step.loss for step in again.steps()] == pytest.approx(losses[3:], rel=1e-3)


@pytest.mark.parametrize("on_spike", ["skip", "stop", "keep"])
def test_a_loss_that_is_no_number(on_spike: str) -> None:
    one = Trainer(Sums(), Random(), Loop(steps=5, on_spike=on_spike), precision=PLAIN)  # type: ignore[arg-type]
    one.step(), one.step()
    before = weights(one)
    if on_spike == "skip":
        told = one.step()
        assert (
            told.spike is not None and "step 2 (rows 0, 1, 2, 3, 4, 5, 6, 7)" in told.spike and "left out" in told.spike
        )
        assert same(before, weights(one))
        assert one.step().spike is None and not same(before, weights(one))
    else:
        with pytest.raises(TrainingError, match=r"step 2 \(rows 0, 1.*loss is nan"):
            one.step()
        assert same(before, weights(one)) and all(p.grad is None for p in one.model.parameters())


def test_a_gradient_far_larger_than_usual_is_left_out() -> None:
    one = trainer(steps=40, spike=3.0, clip=None)
    for _ in range(25):
        assert one.step().spike is None
    one._spikes.norms.extend([n / 100 for n in list(one._spikes.norms)] * 4)
    told = one.step()
    assert told.spike is not None and "usually" in told.spike


def test_gradients_that_have_grown_for_good_are_followed_again() -> None:
    """Else a run whose gradients stay large would leave out every update from there on."""
    one = trainer(steps=80)
    one._spikes.norms.extend([1e-6] * 100)
    spikes = [one.step().spike for _ in range(60)]
    assert spikes[0] is not None and spikes[40] is not None and spikes[-1] is None


class Unlabelled(Random):
    """Some steps have not one label."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps = steps

    def at(self, step: int) -> Sequence[Batch]:
        parts = super().at(step)
        if step not in self.steps:
            return parts
        return [replace(part, labels=torch.full_like(part.labels, IGNORED)) for part in parts]


def test_a_step_without_a_label_is_passed_over_and_said(tmp_path: Path) -> None:
    """And every other step is what it would have been, before a stop and after it; dropout and all."""
    one = trainer(Unlabelled(2), dropout=0.2)
    one.step(), one.step()
    before, random = weights(one), torch.get_rng_state()
    told = one.step()
    assert told.step == 2 and one.done == 3 and math.isnan(told.loss) and told.n_tokens == told.n_texts == 0
    assert (
        told.spike is not None and "step 2 (rows 0, 1," in told.spike and "none of its tokens has a label" in told.spike
    )
    assert same(before, weights(one)) and torch.equal(random, torch.get_rng_state())
    one.save(tmp_path)
    rest = [step.loss for step in one.steps()]
    again = trainer(Unlabelled(2), dropout=0.2)
    again.resume(tmp_path / state.name_of(3))
    assert [step.loss for step in again.steps()] == rest and all(map(math.isfinite, rest))
    assert same(weights(one), weights(again))


def test_data_without_labels_ends_the_run() -> None:
    one = trainer(Random(ignored=1.1), steps=99)
    with pytest.raises(TrainingError, match="steps 0 to 19 had nothing to learn from: none of their tokens has a lab"):
        list(one.steps())
    seldom = trainer(Unlabelled(*range(1, 19)), steps=25)
    assert sum(step.spike is not None for step in seldom.steps()) == 18


def test_nothing_to_learn_from() -> None:
    with pytest.raises(TrainingError, match="nothing to learn from"):
        list(trainer(Random(ignored=1.1), steps=50).steps())
    batch = Batch(inputs={"input_ids": torch.zeros(1, 3, dtype=torch.long)}, labels=torch.full((1, 3), IGNORED))
    with pytest.raises(TrainingError, match="evaluate"):
        mean_loss(tiny(), [batch], PLAIN, torch.device("cpu"))


def test_recomputing_changes_memory_not_numbers() -> None:
    plain = trainer(dropout=0.3)
    losses = [step.loss for step in plain.steps()]
    again = trainer(dropout=0.3, recompute=True)
    assert [step.loss for step in again.steps()] == losses
    assert same(weights(plain), weights(again))


def test_bfloat16_autocast_learns_alike() -> None:
    plain = trainer(steps=8)
    loop = Loop(steps=8, schedule=Constant(), optimiser=AdamW())
    half = Trainer(tiny(), Random(), loop, precision=Chosen(torch.bfloat16, "a test"))
    for a, b in zip(plain.steps(), half.steps(), strict=True):
        assert a.loss == pytest.approx(b.loss, rel=0.02)
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


def test_a_model_that_was_put_into_eval_mode_is_trained_in_training_mode() -> None:
    straight, halted = trainer(dropout=0.2), trainer(dropout=0.2)
    for one in (straight, halted):
        torch.manual_seed(0)
        one.step()
        if one is halted:
            one.model.eval()
        one.step()
    assert all(module.training for module in halted.model.modules())
    assert same(weights(straight), weights(halted))


def test_a_run_of_another_model_is_refused(tmp_path: Path) -> None:
    trainer().save(tmp_path)
    one = trainer()
    one.model = torch.nn.Linear(2, 2)
    folder = state.newest(tmp_path)
    assert folder is not None
    with pytest.raises(CheckpointError, match="another model"):
        one.resume(folder)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"clip": 0.0}, {"smoothing": 1.0}, {"spike": 1.0}, {"on_spike": "no"}, {"keep": 0}]
)
@pytest.mark.usefixtures("as_a_user")
def test_settings_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Loop(**{"steps": 1, **wrong})  # type: ignore[arg-type]
