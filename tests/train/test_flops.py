"""What a token costs: 6 N where all is trained, less where weights are frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clearhead.model import presets
from clearhead.model.config import SequenceClassification
from clearhead.model.recurrent import RecurrentConfig, RecurrentLanguageModel
from clearhead.model.transformer import Decoder, build
from clearhead.train.adapters import Frozen, LoRA, adapt
from clearhead.train.batch import Batch
from clearhead.train.flops import cost_of
from clearhead.train.optimiser import parts_of
from clearhead.train.precision import flops_per_token, peak_named

LAYERS, WIDTH, VOCAB, LENGTH = 3, 16, 50, 8
BLOCK = 12 * WIDTH * WIDTH
"""The weights of a block's matrices: four of attention, two four times as wide."""


def decoder() -> Decoder:
    model = build(presets.gpt2(n_layers=LAYERS, n_heads=2, d_model=WIDTH, vocab_size=VOCAB, context=LENGTH))
    assert isinstance(model, Decoder)
    return model


def test_where_all_is_trained_it_is_the_usual_formula() -> None:
    model = decoder()
    cost = cost_of(model)
    multiplied = sum(p.numel() for p in parts_of(model)["matrices"].values()) + VOCAB * WIDTH
    assert cost is not None and multiplied == LAYERS * BLOCK + VOCAB * WIDTH
    assert cost.of(float(LENGTH)) == flops_per_token(multiplied, LAYERS, WIDTH, LENGTH, causal=True)


def test_of_frozen_blocks_the_gradient_is_led_back_to_the_first_that_is_trained() -> None:
    model = decoder()
    adapt(model, Frozen(train=("decoder.blocks.2",)))
    cost = cost_of(model)
    head = VOCAB * WIDTH
    assert cost is not None
    assert (cost.weights, cost.passed, cost.trained) == (LAYERS * BLOCK + head, BLOCK + head, BLOCK)
    assert (cost.width, cost.width_passed) == (LAYERS * WIDTH / 2, WIDTH / 2)
    assert cost.of(0.0) == 2 * (5 * BLOCK + 2 * head)


def test_lora_is_led_back_through_everything_and_trains_little() -> None:
    model = decoder()
    adapt(model, LoRA(rank=2, targets=("q_proj",), train=()))
    cost = cost_of(model)
    assert cost is not None and cost.trained == LAYERS * 2 * 2 * WIDTH
    assert cost.weights == cost.passed == LAYERS * BLOCK + VOCAB * WIDTH + cost.trained


def test_a_head_alone_is_hardly_more_than_reading() -> None:
    config = presets.bert(n_layers=2, n_heads=2, d_model=WIDTH, vocab_size=VOCAB, context=LENGTH)
    model = build(replace(config, head=SequenceClassification(labels=("a", "b"), pooling="pooler")))
    adapt(model, Frozen(train=("head", "pooler")))
    cost = cost_of(model)
    assert cost is not None and (cost.weights, cost.passed, cost.trained) == (2 * BLOCK, 0, 0)


def test_a_token_of_a_translator_passes_one_of_two_stacks() -> None:
    model = build(presets.vaswani(n_layers=1, n_heads=2, d_model=WIDTH, vocab_size=VOCAB, context=LENGTH))
    cost = cost_of(model)
    matrices = sum(p.numel() for p in parts_of(model)["matrices"].values())
    assert cost is not None and cost.weights == (matrices + VOCAB * WIDTH) / 2
    assert cost.width == (WIDTH + WIDTH / 2 + WIDTH) / 2


def test_of_recurrent_models_it_is_not_known() -> None:
    assert cost_of(RecurrentLanguageModel(RecurrentConfig(vocab_size=VOCAB, d_model=WIDTH))) is None
    assert cost_of(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 836e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", 65e12),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_a_device_has_the_peak_of_its_own_data_sheet(name: str, peak: float | None) -> None:
    assert peak_named(name) == peak


def test_the_texts_of_a_batch_are_counted_by_side() -> None:
    ids, mask = torch.ones(3, 5, dtype=torch.long), torch.tensor([[1] * n + [0] * (5 - n) for n in (5, 3, 1)]).bool()
    one = Batch(inputs={"input_ids": ids, "attention_mask": mask}, labels=ids)
    both = Batch(inputs={**one.inputs, "decoder_input_ids": ids[:, :4]}, labels=ids)
    assert (one.n_tokens, one.n_texts) == (9, 3) and (both.n_tokens, both.n_texts) == (21, 6)
    assert one.muted().n_texts == 0


@pytest.mark.slow
@pytest.mark.parametrize("trained", [True, False])
def test_it_is_what_torch_counts(trained: bool) -> None:
    """PyTorch's own counter, over one forward and backward pass; attention is counted in full there, as a product."""
    from torch.utils.flop_counter import FlopCounterMode

    model = decoder()
    if not trained:
        adapt(model, Frozen(train=("decoder.blocks.2",)))
    ids = torch.randint(VOCAB, (1, LENGTH))
    counter = FlopCounterMode(display=False)
    with counter:
        model(ids).logits.sum().backward()
    cost = cost_of(model)
    assert cost is not None
    # the table's row is looked up and not multiplied, so the first block's own gradient to it is one product less
    assert counter.get_total_flops() == pytest.approx(cost.of(0.0) * LENGTH, rel=0.15)
