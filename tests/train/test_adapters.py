"""Adapters: training begins at the model as it was, only companions move, and merging changes no answer."""

from __future__ import annotations

import pytest
import torch

from clearhead.errors import ConfigError
from clearhead.train.adapters import Frozen, Full, LoRA, LowRank, adapt, merge
from clearhead.train.loop import Loop, Trainer
from clearhead.train.optimiser import AdamW
from clearhead.train.precision import Chosen
from clearhead.train.schedules import Constant
from tests.train.support import VOCAB, Random, tiny

IDS = torch.arange(10)[None] % VOCAB


def trained(choice: Frozen | LoRA) -> tuple[torch.nn.Module, dict[str, torch.Tensor], str]:
    model = tiny()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    said = adapt(model, choice)
    loop = Loop(steps=3, optimiser=AdamW(rate=0.05), schedule=Constant())
    for _ in Trainer(model, Random(), loop, precision=Chosen(torch.float32, "a test")).steps():
        pass
    return model.eval(), before, said


def test_a_companion_begins_as_nothing_and_is_merged_exactly() -> None:
    plain = tiny().eval()
    model = tiny().eval()
    adapt(model, LoRA(rank=2, dropout=0.5))
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    model, before, said = trained(LoRA(rank=2, train=()))
    assert said.startswith("512 of")  # 2 layers × 4 maps × rank 2 × (16 + 16)
    for name, value in model.named_parameters():
        moved = name.endswith((".up", ".down"))
        assert value.requires_grad == moved
        assert moved or torch.equal(value, before[name])
    with_companions = model(IDS).logits
    assert not torch.allclose(with_companions, plain(IDS).logits)
    assert merge(model) == 8 and merge(model) == 0
    assert not any(isinstance(module, LowRank) for module in model.modules())
    assert [name for name, _ in model.named_parameters()] == list(before)
    torch.testing.assert_close(model(IDS).logits, with_companions, atol=1e-5, rtol=1e-5)


def test_only_what_is_named_is_trained() -> None:
    model, before, said = trained(Frozen(train=("norm",)))
    for name, value in model.named_parameters():
        assert (not torch.equal(value, before[name])) == (name == "decoder.norm.weight" or name == "decoder.norm.bias")
    assert said.startswith("32 of")
    assert adapt(model, Full()).endswith("(100.00%)")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (lambda: LoRA(rank=0), "rank=0"),
        (lambda: LoRA(dropout=1.0), "dropout=1.0"),
        (lambda: LoRA(targets=()), "targets is empty"),
        (lambda: LoRA(targets=("query",)), "no linear map is named 'query'; there are"),
        (lambda: Frozen(train=("no_such",)), "no parameter has 'no_such'"),
    ],
)
def test_names_that_fit_nothing(choice: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        adapt(tiny(), choice())  # type: ignore[operator]
