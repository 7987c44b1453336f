"""The formulas of docs/scale.md, against what two processes hold and send, and what one keeps for the way back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from clearhead.errors import ConfigError
from clearhead.model import presets
from clearhead.model.config import ModelConfig
from clearhead.model.transformer import build
from clearhead.train.scale import memory, traffic
from tests.train.measured import PARTS, config
from tests.train.test_distributed import torchrun


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Any]]:
    path = tmp_path_factory.mktemp("measured") / "found.json"
    torchrun(2, "measured.py", path)
    return {(each["how"], each["rank"]): each for each in json.loads(path.read_text())}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_what_a_process_holds(measured: dict[tuple[str, int], dict[str, Any]], how: Any, rank: int) -> None:
    found, told = measured[how, rank], memory(config(), how=how, devices=2)
    for name in ("weights", "gradients", "moments"):
        assert found[name] == pytest.approx(getattr(told, name), rel=0.02), name


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_what_a_process_sends(measured: dict[tuple[str, int], dict[str, Any]], how: Any) -> None:
    """Sums and norms are reduced too: some bytes of a step."""
    found, told = measured[how, 0], traffic(config(), how=how, devices=2, parts=PARTS)
    ring = {"all_gather": 1 / 2, "reduce_scatter": 1 / 2, "all_reduce": 2 / 2}
    for name, share in ring.items():
        assert found.get(name, 0) * share == pytest.approx(getattr(told, name), abs=200), name


def kept(config: ModelConfig, *, bf16: bool, length: int) -> int:
    """Bytes that autograd keeps of a forward pass, weights left out."""
    model = build(config)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(config.vocab_size, (1, length))
    watched = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with watched, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = model(ids)
    assert output.logits is not None
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_what_a_block_keeps_for_the_way_back(shape: str, bf16: bool) -> None:
    def config(layers: int) -> ModelConfig:
        if shape == "gpt2":
            return presets.gpt2(n_layers=layers, n_heads=4, d_model=128, vocab_size=50, context=256)
        return presets.llama(
            n_layers=layers, n_heads=4, n_kv_heads=2, d_model=128, d_ff=344, vocab_size=50, context=256
        )

    block = kept(config(3), bf16=bf16, length=256) - kept(config(2), bf16=bf16, length=256)
    less, more = (memory(config(layers), rows=1, length=256, bf16=bf16) for layers in (2, 3))
    assert block == more.activations - less.activations + more.narrow - less.narrow


def test_recomputing_keeps_what_blocks_read() -> None:
    config = presets.gpt2(n_layers=12)
    whole, again = (memory(config, rows=1, length=1024, recompute=way).activations for way in (False, True))
    assert again == pytest.approx(1024 * 4 * 768 * 12 + whole / 12)


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ConfigError, match="models of one stack"):
        memory(presets.vaswani(), rows=1, length=8)
    with pytest.raises(ConfigError, match="devices=0"):
        traffic(presets.gpt2(), devices=0)


def test_one_device_sends_nothing() -> None:
    for how in ("ddp", "fsdp"):
        assert traffic(presets.gpt2(), how=how).total == 0  # type: ignore[arg-type]
        assert memory(presets.gpt2(), how=how).state == 16 * 124_439_808  # type: ignore[arg-type]
