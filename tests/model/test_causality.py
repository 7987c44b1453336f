"""Order and time: what comes later changes nothing that came before, and without positions order is nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clearhead.model.config import ALiBi, AttentionConfig, LanguageModel, Learned, NoPosition, Position, RMSNorm, Rotary
from clearhead.model.transformer import Decoder
from tests.model import tiny

KINDS: dict[str, tuple[Position, dict[str, object]]] = {
    "GPT-2": (Learned(), {}),
    "rotary, grouped": (Rotary(), {"attention": tiny.GROUPED, "norm": RMSNorm()}),
    "ALiBi": (ALiBi(), {}),
    "window": (Rotary(), {"attention": replace(tiny.ATTENTION, window=5)}),
    "softcap and sinks": (Rotary(), {"attention": AttentionConfig(n_heads=4, softcap=5.0, sinks=True)}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [2, 17, 96])
def test_a_later_token_changes_no_earlier_logit(kind: str, length: int) -> None:
    position, choices = KINDS[kind]
    model = tiny.decoder(position, **choices)
    ids = tiny.ids(2, length)
    before = model(ids).logits
    for changed in {1, length // 2, length - 1}:
        other = ids.clone()
        other[:, changed] = (other[:, changed] + 1) % tiny.VOCABULARY
        after = model(other).logits
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert not torch.equal(after[:, changed:], before[:, changed:])


@pytest.mark.parametrize("kind", KINDS)
def test_so_it_is_past_every_tile(kind: str) -> None:
    """Longer than the tiles of the kernels, ours (256 rows, 1,024 keys) and PyTorch's."""
    position, choices = KINDS[kind]
    model = tiny.decoder(position, whole={"context": 1100}, **choices)
    ids = tiny.ids(1, 1100)
    with torch.no_grad():
        before = model(ids).logits
        for changed in (511, 1024):
            other = ids.clone()
            other[:, changed:] = (other[:, changed:] + 1) % tiny.VOCABULARY
            assert torch.equal(model(other).logits[:, :changed], before[:, :changed])


def test_a_whole_gpt2_does_not_look_ahead() -> None:
    """At its own width, where the matrix products are blocked."""
    from clearhead.model.presets import gpt2

    model = Decoder(gpt2(n_layers=2, vocab_size=300)).eval()
    ids = torch.randint(0, 300, (1, 200))
    other = ids.clone()
    other[:, 120:] = 7
    with torch.no_grad():
        assert torch.equal(model(other).logits[:, :120], model(ids).logits[:, :120])


def test_without_positions_permuting_the_input_permutes_the_output() -> None:
    model = tiny.encoder(NoPosition())
    ids = tiny.ids(2, 23)
    order = torch.randperm(23)
    torch.testing.assert_close(model(ids[:, order]).hidden, model(ids).hidden[:, order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in tiny.POSITIONS if name != "none"])
def test_with_positions_it_does_not(name: str) -> None:
    model = tiny.encoder(tiny.POSITIONS[name])
    ids = tiny.ids(2, 23)
    order = torch.randperm(23)
    assert not torch.allclose(model(ids[:, order]).hidden, model(ids).hidden[:, order], atol=1e-2)


def test_an_encoder_reads_both_ways() -> None:
    model = tiny.encoder(whole={"head": LanguageModel()})
    ids = tiny.ids(1, 9)
    other = ids.clone()
    other[:, 8] = (other[:, 8] + 1) % tiny.VOCABULARY
    assert not torch.allclose(model(other).logits[:, 0], model(ids).logits[:, 0], atol=1e-3)
