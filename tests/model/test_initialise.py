"""How weights begin: the spreads that the papers give, and the same weights from the same seed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from clearhead.model import build, presets
from clearhead.model.config import AttentionConfig, Biases, LanguageModel, ModelConfig, T5Bias, T5Init
from clearhead.model.heads import LanguageModelHead
from tests.model import tiny


def spread(weight: Tensor, std: float, *, mean: float = 0.0) -> None:
    """`weight` looks drawn with this mean and spread: within six standard errors of each."""
    n = weight.numel()
    assert float(weight.detach().mean()) == pytest.approx(mean, abs=6 * std / math.sqrt(n))
    assert float(weight.detach().std()) == pytest.approx(std, rel=6 / math.sqrt(2 * n))


def rests(model: nn.Module) -> None:
    """Norms begin at one and every bias at zero."""
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif p.ndim == 1:
            assert (p == 1).all(), name


def test_gpt2_shrinks_what_writes_to_the_stream() -> None:
    model = build(presets.gpt2(n_layers=8, n_heads=4, d_model=128, vocab_size=500))
    for name, p in model.named_parameters():
        if p.ndim > 1:
            writes = name.endswith(("o_proj.weight", "down.weight"))
            spread(p, 0.02 / math.sqrt(16) if writes else 0.02)
    rests(model)


def test_bert_does_not() -> None:
    model = build(presets.bert(n_layers=2, n_heads=4, d_model=128, vocab_size=500))
    for p in model.parameters():
        if p.ndim > 1:
            spread(p, 0.02)
    rests(model)


def test_the_transformer_of_the_paper() -> None:
    model = build(replace(presets.vaswani(vocab_size=500), d_model=128))
    spread(model.encoder.embedding.tokens.weight, 128**-0.5)  # type: ignore[union-attr]
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = math.sqrt(6 / (module.in_features + module.out_features))
            assert float(module.weight.detach().abs().max()) <= bound * (1 + 1e-6)
            spread(module.weight, bound / math.sqrt(3))
    rests(model)


def test_t5_as_its_code_has_it() -> None:
    attention = AttentionConfig(n_heads=8, d_head=32, scale=1.0, bias=Biases.none())
    stack = tiny.stack(T5Bias(), attention=attention)
    config = ModelConfig(
        vocab_size=500,
        d_model=64,
        context=32,
        encoder=stack,
        decoder=replace(stack, cross_attention=attention),
        head=LanguageModel(tied=False),
        init=T5Init(factor=0.5),
    )
    model = build(config)
    block = model.decoder.blocks[0]  # type: ignore[union-attr]
    assert isinstance(model.head, LanguageModelHead) and model.head.weight is not None
    for weight, std in (
        (model.encoder.embedding.tokens.weight, 1.0),  # type: ignore[union-attr]
        (block.attention.q_proj.weight, (64 * 32) ** -0.5),
        (block.cross_attention.k_proj.weight, 64**-0.5),
        (block.attention.o_proj.weight, (8 * 32) ** -0.5),
        (block.feedforward.up.weight, 64**-0.5),
        (block.feedforward.down.weight, 48**-0.5),
        (model.decoder.bias.weight, 64**-0.5),  # type: ignore[union-attr]
        (model.head.weight, 64**-0.5),
    ):
        spread(weight, 0.5 * std)


SIZES = {"n_layers": 1, "n_heads": 2, "d_model": 16, "vocab_size": 50}
SMALL = {
    "GPT-2": presets.gpt2(**SIZES),  # type: ignore[arg-type]
    "BERT": presets.bert(**SIZES),  # type: ignore[arg-type]
    "Llama": presets.llama(**SIZES, n_kv_heads=1, d_ff=24),  # type: ignore[arg-type]
    "Vaswani": replace(presets.vaswani(vocab_size=50, context=8), d_model=16),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    small, weights = SMALL[name], []
    for _ in range(2):
        torch.manual_seed(7)
        weights.append(build(small).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert all(w.isfinite().all() for w in weights[0].values())


def test_a_fresh_model_expects_nothing() -> None:
    """Its loss is that of a uniform guess: ln V."""
    model = build(presets.gpt2(n_layers=4, n_heads=4, d_model=128, vocab_size=1000, context=128))
    ids = torch.randint(0, 1000, (4, 128))
    loss = nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert float(loss.detach()) == pytest.approx(math.log(1000), abs=0.1)
