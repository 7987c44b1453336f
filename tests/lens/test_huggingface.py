"""Watching transformers' models: kinds, caches, shared configs. That weights are eager's: test_huggingface_families."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import AttentionInterface

from clearhead.errors import OutsideError
from clearhead.lens.watch import watch
from tests.lens.foreign import build, inputs


def test_kinds() -> None:
    for name, kinds in {"bert": ("encoder",), "gpt2": ("decoder",), "bart": ("encoder", "decoder", "cross")}.items():
        model = build(name)
        with torch.inference_mode(), watch(model) as seen:
            model(**inputs(name))
        assert seen.kinds == kinds


def test_a_model_that_shares_a_config_is_served_and_not_seen() -> None:
    watched = build("llama")
    other = transformers.LlamaForCausalLM(watched.config).eval()
    ids = torch.randint(3, 60, (1, 7))
    with torch.inference_mode():
        before = other(ids).logits
        with watch(watched) as seen:
            during = other(ids).logits
            watched(ids)
    torch.testing.assert_close(before, during)
    assert seen.n_calls("decoder") == 1
    assert watched.config._attn_implementation == other.config._attn_implementation == "sdpa"


def test_generation_with_a_cache() -> None:
    model = build("llama")
    ids = torch.randint(3, 60, (1, 6))
    with torch.inference_mode(), watch(model) as seen:
        written = model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    with torch.inference_mode(), watch(model) as whole:
        model(written)
    full = whole.map(1, 2).dense()
    for call in range(1, seen.n_calls("decoder")):
        row = seen.map(1, 2, call=call)[0]
        torch.testing.assert_close(row, full[len(row) - 1, : len(row)], atol=1e-6, rtol=0)


def test_everything_is_put_back_after_an_exception() -> None:
    model = build("bert")
    with pytest.raises(RuntimeError, match="mine"), watch(model):
        raise RuntimeError("mine")
    assert model.config._attn_implementation == "sdpa"
    assert not model._forward_pre_hooks


def test_the_interface_is_registered_under_our_name_only() -> None:
    model = build("gpt2")
    known = set(AttentionInterface._global_mapping)
    with watch(model):
        pass
    assert set(AttentionInterface._global_mapping) - known <= {"clearhead_lens"}


def test_generation_with_a_static_cache() -> None:
    """Its buffers are written into again and again; what was kept stays what it was."""
    model = build("llama")
    ids = torch.randint(3, 60, (1, 6))
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        plain = model.generate(ids, **settings)
        with watch(model) as seen:
            static = model.generate(ids, cache_implementation="static", disable_compile=True, **settings)
        with watch(model) as whole:
            model(static)
    assert torch.equal(plain, static)
    full = whole.map(1, 2).dense()
    torch.testing.assert_close(seen.map(1, 2, call=0)[:, :6], full[:6, :6], atol=1e-6, rtol=0)


def test_layers_that_are_not_there() -> None:
    model = build("bert")
    with pytest.raises(OutsideError, match="layer 5"), watch(model, layers=[5]):
        pass
