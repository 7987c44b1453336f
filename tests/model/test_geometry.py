"""The sizes of well-known models, counted on the meta device: nothing is allocated."""

from __future__ import annotations

import resource

import pytest

from clearhead.model import ModelConfig, presets, skeleton


def count(config: ModelConfig) -> int:
    model = skeleton(config)
    assert all(p.is_meta for p in model.parameters())
    assert all(b.is_meta for b in model.buffers())
    return model.n_parameters()


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        pytest.param(presets.gpt2(), 124_439_808, id="GPT-2"),
        pytest.param(presets.gpt2_xl(), 1_557_611_200, id="GPT-2 XL"),
        pytest.param(presets.bert(), 109_482_240, id="BERT base, uncased, with its pooler"),
        pytest.param(presets.llama(), 1_235_814_400, id="Llama 3.2 1B"),
    ],
)
def test_the_parameters_are_counted_to_the_last(config: ModelConfig, parameters: int) -> None:
    assert count(config) == parameters


def test_gpt3_is_within_a_hundredth_of_175_billion_and_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert count(presets.gpt3()) == pytest.approx(175e9, rel=0.01)  # 700 GB, if it were there
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, f"{grown} KiB"


def test_the_transformer_of_the_paper_is_about_63_million() -> None:
    """Vaswani et al. 2017, table 3, says 65 million for a base model with 37,000 tokens of vocabulary."""
    assert count(presets.vaswani()) == pytest.approx(65e6, rel=0.05)
