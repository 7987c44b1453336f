"""Watching our models: outputs do not move, everything is put back, and what is kept is q, k and a number a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearhead.errors import LensError, NotWatchableError, OutsideError
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.config import (
    AttentionConfig,
    ModelConfig,
    RMSNorm,
    Rotary,
    Sequential,
    StackConfig,
    T5Bias,
)
from clearhead.model.kernels import Scoring, attention_weights, equation, fused, fused_with_lse
from clearhead.model.masks import BucketBias, Mask
from clearhead.model.transformer import Decoder, EncoderDecoder, build


def small(**change: Any) -> ModelConfig:
    return presets.gpt2(n_layers=3, n_heads=4, d_model=32, vocab_size=60, context=64, **change)


def with_decoder(config: ModelConfig, **change: Any) -> ModelConfig:
    assert config.decoder is not None
    return replace(config, decoder=replace(config.decoder, **change))


def both() -> ModelConfig:
    config = presets.vaswani(vocab_size=60, context=64)
    assert config.encoder is not None and config.decoder is not None
    tiny = {"n_layers": 2, "attention": AttentionConfig(n_heads=4), "position": T5Bias(buckets=8, max_distance=16)}
    return replace(
        config,
        d_model=32,
        encoder=replace(config.encoder, **tiny),
        decoder=replace(config.decoder, **tiny, cross_attention=AttentionConfig(n_heads=4)),
    )


CONFIGS = {
    "gpt2": small(),
    "rotary": with_decoder(
        small(), position=Rotary(), norm=RMSNorm(), attention=AttentionConfig(n_heads=4, n_kv_heads=2)
    ),
    "window": with_decoder(small(), attention=AttentionConfig(n_heads=4, window=3)),
    "softcap and sinks": with_decoder(small(), attention=AttentionConfig(n_heads=4, softcap=3.0, sinks=True)),
    "shared": with_decoder(small(), share_layers=True, residual=Sequential()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_do_not_move(name: str) -> None:
    model = build(CONFIGS[name]).eval()
    ids = torch.randint(60, (2, 20))
    with torch.inference_mode():
        before = model(ids).logits
        with watch(model) as seen:
            during = model(ids).logits
        after = model(ids).logits
    assert torch.equal(before, during) and torch.equal(before, after)
    assert all(block.attention.kernel is fused for block in model.decoder.blocks)  # type: ignore[union-attr]
    assert seen.kinds == ("decoder",) and seen.n_layers() == 3 and seen.n_heads() == 4


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_are_those_that_ran(name: str) -> None:
    """The map against weights that a second kernel, swapped in, materialises for the same q and k."""
    model = build(CONFIGS[name]).eval()
    ids = torch.randint(60, (2, 20))
    real = torch.ones(2, 20, dtype=torch.bool)
    real[1, :6] = False
    materialised = []

    def keep(q: Any, k: Any, v: Any, scoring: Any, *, dropout: float = 0.0) -> Any:
        materialised.append(
            attention_weights(q, k, scoring.mask, scoring.scale, softcap=scoring.softcap, sinks=scoring.sinks)
        )
        return fused(q, k, v, scoring)

    with torch.inference_mode():
        with watch(model) as seen:
            model(ids, attention_mask=real)
        for block in model.decoder.blocks:  # type: ignore[union-attr]
            block.attention.kernel = keep
        model(ids, attention_mask=real)
    for layer, weights in enumerate(materialised):
        for head in range(4):
            for batch in range(2):
                found = seen.map(layer, head, batch=batch).dense()
                torch.testing.assert_close(found, weights[batch, head], atol=1e-6, rtol=0)


def test_an_encoder_decoder_has_three_kinds() -> None:
    model = build(both()).eval()
    assert isinstance(model, EncoderDecoder)
    with torch.inference_mode(), watch(model) as seen:
        model(torch.randint(60, (1, 9)), torch.randint(60, (1, 5)))
    assert seen.kinds == ("encoder", "decoder", "cross")
    assert seen.map(1, 3, "encoder").shape == (9, 9)
    assert seen.map(1, 3, "decoder").shape == (5, 5)
    assert seen.map(1, 3, "cross").shape == (5, 9)
    assert float(seen.map(0, 0, "decoder")[0, 1:].max()) == 0.0
    torch.testing.assert_close(seen.map(0, 0, "cross").row_sums(), torch.ones(5))
    with pytest.raises(LensError, match="say which"):
        seen.map(0, 0)


def test_what_is_kept_is_small_and_owned() -> None:
    model = build(small()).eval()
    ids = torch.randint(60, (1, 40))
    with torch.inference_mode(), watch(model) as seen:
        model(ids)
    width, heads, layers = 32, 4, 3
    assert seen.nbytes == layers * (2 * 40 * width * 4 + heads * 40 * 4)
    q, k, _ = seen.call(0).tensors
    for kept in (q, k):
        assert kept.untyped_storage().nbytes() <= 1.05 * kept.numel() * kept.element_size()


def test_later_training_does_not_reach_a_map() -> None:
    config = with_decoder(small(), position=T5Bias(buckets=8, max_distance=16))
    model = build(config).eval()
    ids = torch.randint(60, (1, 12))
    with torch.no_grad(), watch(model) as seen:
        model(ids)
    before = seen.map(1, 1).dense()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(before, seen.map(1, 1).dense())


def test_watching_trains_all_the_same() -> None:
    """Under watch, gradients are those of the plain forward; also with dropout, with the same random numbers."""
    for config in (small(), small(dropout=0.3), with_decoder(small(), position=T5Bias(buckets=8, max_distance=16))):
        model = build(config).train()
        ids = torch.randint(60, (2, 12))
        gradients = []
        for watching in (False, True):
            torch.manual_seed(1)
            model.zero_grad()
            if watching:
                with watch(model) as seen:
                    model(ids).logits.square().mean().backward()
                torch.testing.assert_close(seen.map(0, 0).row_sums(), torch.ones(12))
            else:
                model(ids).logits.square().mean().backward()
            gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_generation_is_watched_step_by_step() -> None:
    model = build(small()).eval()
    assert isinstance(model, Decoder)
    ids = torch.randint(60, (1, 10))
    with torch.inference_mode():
        cache = model.new_cache()
        with watch(model) as steps:
            model(ids[:, :7], cache=cache)
            for at in range(7, 10):
                model(ids[:, at : at + 1], cache=cache)
        with watch(model) as whole:
            model(ids)
    assert steps.n_calls() == 4
    full = whole.map(2, 1).dense()
    torch.testing.assert_close(steps.map(2, 1, call=0).dense(), full[:7, :7], atol=1e-6, rtol=0)
    for call, at in enumerate(range(7, 10), start=1):
        torch.testing.assert_close(steps.map(2, 1, call=call)[0], full[at, : at + 1], atol=1e-6, rtol=0)


def test_only_the_layers_that_were_asked_for() -> None:
    model = build(small()).eval()
    with torch.inference_mode(), watch(model, layers=[1]) as seen:
        model(torch.randint(60, (1, 5)))
    assert seen.map(1, 0).shape == (5, 5)
    with pytest.raises(OutsideError, match="layer 0"):
        seen.map(0, 0)


def test_everything_is_put_back_after_an_exception() -> None:
    model = build(small()).eval()
    with pytest.raises(RuntimeError, match="mine"), watch(model):
        raise RuntimeError("mine")
    assert all(block.attention.kernel is fused for block in model.decoder.blocks)  # type: ignore[union-attr]


def test_refusals_are_one_line() -> None:
    model = build(small()).eval()
    with watch(model), pytest.raises(LensError, match="already"), watch(model):
        pass
    with pytest.raises(NotWatchableError, match="neither"), watch(torch.nn.Linear(2, 2)):
        pass
    model.decoder.blocks[0].attention.kernel = lambda *a, **k: None  # type: ignore[union-attr]
    with pytest.raises(NotWatchableError, match="kernel of its own"), watch(model):
        pass
    model.decoder.blocks[0].attention.kernel = equation  # type: ignore[union-attr]
    with torch.inference_mode(), watch(model) as seen:
        model(torch.randint(60, (1, 5)))
    torch.testing.assert_close(seen.map(0, 0).row_sums(), torch.ones(5))
    for wrong in (lambda: seen.map(3, 0), lambda: seen.map(0, 4), lambda: seen.map(0, 0, batch=1)):
        with pytest.raises(OutsideError):
            wrong()
    with watch(build(small())) as empty:
        pass
    with pytest.raises(LensError, match="nothing was seen"):
        empty.map(0, 0)


def test_links_rank_every_head() -> None:
    model = build(small()).eval()
    with torch.inference_mode(), watch(model) as seen:
        model(torch.randint(60, (1, 12)))
    links = seen.links([9, 10], [2, 3])
    assert len(links) == 12 and links == sorted(links, key=lambda link: -link.weight)
    for link in links:
        tile = seen.map(link.layer, link.head).dense()[9:11, 2:4]
        assert link.weight == pytest.approx(float(tile.sum(-1).mean()), abs=1e-6)
    with pytest.raises(OutsideError):
        seen.links([12], [0])


def test_stack_config_of_a_shared_block_is_three_layers() -> None:
    model = build(CONFIGS["shared"]).eval()
    assert isinstance(CONFIGS["shared"].decoder, StackConfig)
    with torch.inference_mode(), watch(model) as seen:
        model(torch.randint(60, (1, 6)))
        model(torch.randint(60, (1, 7)))
    assert [seen.n_calls(layer=layer) for layer in range(3)] == [2, 2, 2]
    assert not torch.equal(seen.map(0, 0).dense(), seen.map(2, 0).dense())


def test_a_pass_that_fails_does_not_shift_the_layers_of_a_shared_block() -> None:
    model = build(CONFIGS["shared"]).eval()
    ids = torch.randint(60, (1, 6))
    with torch.inference_mode():
        with watch(model) as right:
            model(ids)
        feedforward = model.decoder.blocks[0].feedforward  # type: ignore[union-attr]
        with watch(model) as seen:
            handle = feedforward.register_forward_pre_hook(lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model(ids)
            handle.remove()
            model(ids)
    for layer in range(3):
        assert torch.equal(seen.map(layer, 0).dense(), right.map(layer, 0).dense())
    with torch.inference_mode(), watch(model, layers=[1]) as one:
        model(ids)
    assert one.n_calls(layer=1) == 1 and one.n_calls(layer=0) == 0
    with pytest.raises(OutsideError, match="layer 3"), watch(model, layers=[3]):
        pass


def test_a_mask_that_is_overwritten_later_does_not_reach_a_map() -> None:
    model = build(small()).eval()
    real = torch.ones(1, 10, dtype=torch.bool)
    real[0, :4] = False
    with torch.inference_mode(), watch(model) as seen:
        model(torch.randint(60, (1, 10)), attention_mask=real)
    before = seen.map(1, 1).dense()
    real.fill_(True)
    assert torch.equal(before, seen.map(1, 1).dense())


def test_under_autocast_the_weights_are_those_of_the_half_precision_that_ran() -> None:
    for config in (CONFIGS["rotary"], CONFIGS["softcap and sinks"], small()):
        model = build(config).eval()
        ids = torch.randint(60, (1, 20))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            plain = model(ids).logits
            with watch(model) as seen:
                assert torch.equal(plain, model(ids).logits)
            sums = seen.map(1, 1).row_sums()
        assert seen.call(1).tensors[0].dtype == torch.bfloat16
        if config is not CONFIGS["softcap and sinks"]:
            torch.testing.assert_close(sums, torch.ones(20), atol=2e-4, rtol=0)


def test_each_call_says_which_kernel_ran() -> None:
    ids = torch.randint(60, (1, 6))
    names = {
        "gpt2": "fused flash attention (CPU)",
        "window": "fused flash attention (CPU)",
        "softcap and sinks": "blockwise online softmax",
    }
    for config, name in names.items():
        model = build(CONFIGS[config]).eval()
        with torch.inference_mode(), watch(model) as seen:
            model(ids)
        assert seen.call(1).kernel == name
    model = build(small(dropout=0.3)).train()
    with torch.no_grad(), watch(model) as seen:
        model(ids)
    assert seen.call(1).kernel == "scaled_dot_product_attention, with dropout"
    for block in model.decoder.blocks:  # type: ignore[union-attr]
        block.attention.kernel = equation
    with torch.no_grad(), watch(model) as seen:
        model(ids)
    assert seen.call(1).kernel == "equation, written out"


def test_generation_keeps_each_key_once() -> None:
    model = build(small()).eval()
    assert isinstance(model, Decoder)
    with torch.inference_mode(), watch(model) as seen:
        cache = model.new_cache()
        for _ in range(20):
            model(torch.randint(60, (1, 1)), cache=cache)
    stores = {id(x): x for call in range(20) for x in [seen.call(0, call=call).own_tensors[1].untyped_storage()]}
    assert sum(x.nbytes() for x in stores.values()) == 20 * 32 * 4  # each key once


def test_kernels_take_tensors_of_any_layout() -> None:
    q, k, v = (torch.randn(1, 2, 8, 16).transpose(-1, -2) for _ in range(3))
    out, lse = fused_with_lse(q, k, v, Scoring(0.3))
    torch.testing.assert_close(out, equation(q, k, v, Scoring(0.3)), atol=1e-6, rtol=0)
    scores = q @ k.transpose(-1, -2) * 0.3
    torch.testing.assert_close(lse, scores.logsumexp(-1), atol=1e-5, rtol=0)


def test_a_trained_bias_keeps_its_gradient_when_a_mask_is_used_again() -> None:
    table = torch.randn(8, 2, requires_grad=True)
    mask = Mask((), (BucketBias(table, True, 16),))
    q = torch.randn(1, 2, 6, 4)
    with torch.no_grad():
        fused(q, q, q, Scoring(0.5, mask))
    assert fused(q, q, q, Scoring(0.5, mask)).requires_grad
