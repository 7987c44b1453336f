"""Biases, as the kernel that ran added them: in half precision, from an archive, at temperature 1, and in T5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clearhead.lens.seen import Seen
from clearhead.lens.watch import watch
from clearhead.lens.ways_out.archive import read_npz, write_npz
from clearhead.lens.whatif.layer import at_temperature
from clearhead.model import presets
from clearhead.model.config import ALiBi, Position, T5Bias
from clearhead.model.transformer import Decoder, build

IDS = torch.arange(300)[None] % 60


def model_with(position: Position, dtype: torch.dtype) -> Decoder:
    config = presets.gpt2(n_layers=2, n_heads=4, d_model=32, vocab_size=60, context=512)
    assert config.decoder is not None
    model = build(replace(config, decoder=replace(config.decoder, position=position)))
    assert isinstance(model, Decoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    return model.eval().to(dtype)


def seen_of(position: Position, dtype: torch.dtype) -> Seen:
    with torch.inference_mode(), watch(model := model_with(position, dtype)) as seen:
        model(IDS)
    return seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("position", [ALiBi(), T5Bias()])
def test_an_archive_gives_back_every_weight_to_the_bit(position: Position, dtype: torch.dtype, tmp_path: Path) -> None:
    seen = seen_of(position, dtype)
    write_npz(tmp_path / "a.npz", seen)
    back = read_npz(tmp_path / "a.npz")
    assert isinstance(back, Seen)
    assert (seen.call(0).scoring.bias_dtype is not None) == (dtype != torch.float32)
    for head in range(4):
        m = seen.map(1, head)
        assert m.verify().ok
        assert torch.equal(back.map(1, head).dense(), m.dense())
        torch.testing.assert_close(at_temperature(m, 1.0).dense(), m.dense(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_t5_is_watched_with_the_kernel_that_runs(dtype: torch.dtype) -> None:
    """Its table is a parameter, which needs no gradient where none is taken."""
    model = model_with(T5Bias(), dtype)
    with torch.inference_mode():
        plain = model(IDS).logits
        with watch(model) as seen:
            looked = model(IDS).logits
    assert torch.equal(plain, looked)
    assert "blockwise" not in seen.call(0).kernel


def test_a_head_of_zero_values_is_verified() -> None:
    model = model_with(ALiBi(), torch.float32)
    with torch.no_grad():
        model.decoder.block(0).attention.v_proj.weight.zero_()
        model.decoder.block(0).attention.v_proj.bias.zero_()
    with torch.inference_mode(), watch(model, receipts=True) as seen:
        model(IDS)
    receipt = seen.map(0, 0).verify()
    assert receipt.ok and receipt.output == 0, str(receipt)
