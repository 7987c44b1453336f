"""Watching transformers' models: weights equal eager's, outputs do not move, and what cannot be watched is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from transformers import AttentionInterface

from clearhead.errors import LensError, NotWatchableError, OutsideError
from clearhead.lens.watch import watch

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
BART: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 32,
}
T5: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 4,
    "d_kv": 8,
    "d_ff": 64,
    "decoder_start_token_id": 0,
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "bert": ("BertForMaskedLM", "BertConfig", SMALL),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**SMALL, "num_key_value_heads": 2}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**SMALL, "num_key_value_heads": 2, "sliding_window": 3}),
    "albert": ("AlbertModel", "AlbertConfig", {**SMALL, "embedding_size": 16, "num_hidden_layers": 3}),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
}


def twins(name: str) -> tuple[Any, Any]:
    """The same random weights twice: as it runs by default, and eager, which gives its weights."""
    cls, config_cls, change = MODELS[name]
    config = getattr(transformers, config_cls)(**change)
    make = getattr(transformers, cls)._from_config
    model = make(config, attn_implementation="sdpa").eval()
    eager = make(copy.deepcopy(config), attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    return model, eager


def inputs(name: str, padding: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 60, (2, 9))
    given: dict[str, torch.Tensor] = {"input_ids": ids}
    if padding != "none":
        real = torch.ones_like(ids)
        real[0, slice(6, None) if padding == "right" else slice(0, 3)] = 0
        given["attention_mask"] = real
    if name in ("t5", "bart"):
        given["decoder_input_ids"] = ids[:, :5]
    return given


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_equal_eager_and_outputs_do_not_move(name: str, padding: str) -> None:
    model, eager = twins(name)
    given = inputs(name, padding)
    with torch.inference_mode():
        before = model(**given)[0]
        with watch(model) as seen:
            during = model(**given)[0]
        after = model(**given)[0]
        told = eager(**given, output_attentions=True)
    assert torch.equal(before, during) and torch.equal(before, after)
    assert model.config._attn_implementation == "sdpa"
    by_kind = {
        "encoder": told.get("encoder_attentions") or told.get("attentions"),
        "decoder": told.get("decoder_attentions") or told.get("attentions"),
        "cross": told.get("cross_attentions"),
    }
    real = given.get("attention_mask", torch.ones_like(given["input_ids"])).bool()
    for kind in seen.kinds:
        assert seen.n_layers(kind) == len(by_kind[kind])
        for layer, expected in enumerate(by_kind[kind]):
            for head in range(expected.shape[1]):
                for batch in range(2):
                    found, wanted = seen.map(layer, head, kind, batch=batch).dense(), expected[batch, head]
                    padded = kind != "cross" and found.shape[0] == 9
                    rows = real[batch] if padded else slice(None)  # what padding reads is nobody's business
                    torch.testing.assert_close(found[rows], wanted[rows], atol=1e-6, rtol=0)


def test_kinds() -> None:
    for name, kinds in {"bert": ("encoder",), "gpt2": ("decoder",), "bart": ("encoder", "decoder", "cross")}.items():
        model, _ = twins(name)
        with torch.inference_mode(), watch(model) as seen:
            model(**inputs(name, "none"))
        assert seen.kinds == kinds


def test_a_model_that_shares_a_config_is_served_and_not_seen() -> None:
    config = transformers.LlamaConfig(**SMALL)
    watched = transformers.LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval()
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
    model, _ = twins("llama")
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
    model, _ = twins("bert")
    with pytest.raises(RuntimeError, match="mine"), watch(model):
        raise RuntimeError("mine")
    assert model.config._attn_implementation == "sdpa"
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    "cls, config",
    [
        ("BloomForCausalLM", {"vocab_size": 60, "hidden_size": 32, "n_layer": 1, "n_head": 4}),
        ("MptForCausalLM", {"vocab_size": 60, "d_model": 32, "n_layers": 1, "n_heads": 4, "max_seq_len": 32}),
        ("MPNetModel", SMALL),
        ("GPTNeoForCausalLM", {"vocab_size": 60, "hidden_size": 32, "num_layers": 2, "num_heads": 4,
                               "attention_types": [[["global", "local"], 1]]}),
    ],
)  # fmt: skip
def test_what_does_not_dispatch_is_refused_untouched(cls: str, config: dict[str, Any]) -> None:
    kind: Any = getattr(transformers, cls)
    model = kind(kind.config_class(**config)).eval()
    ids = torch.randint(3, 60, (1, 6))
    with torch.inference_mode():
        before, implementation = model(ids)[0], model.config._attn_implementation
        with pytest.raises(NotWatchableError, match=cls) as caught, watch(model):
            model(ids)
        assert "\n" not in str(caught.value)
        assert torch.equal(before, model(ids)[0])
    assert model.config._attn_implementation == implementation


def test_watched_twice_is_refused() -> None:
    model, _ = twins("gpt2")
    with watch(model), pytest.raises(LensError, match="already"), watch(model):
        pass


def test_the_interface_is_registered_under_our_name_only() -> None:
    model, _ = twins("gpt2")
    known = set(AttentionInterface._global_mapping)
    with watch(model):
        pass
    assert set(AttentionInterface._global_mapping) - known <= {"clearhead_lens"}


def test_generation_with_a_static_cache() -> None:
    """Its buffers are written into again and again; what was kept stays what it was."""
    model, _ = twins("llama")
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
    model, _ = twins("bert")
    with pytest.raises(OutsideError, match="layer 5"), watch(model, layers=[5]):
        pass
