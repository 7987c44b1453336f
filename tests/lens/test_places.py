"""Places of transformers models: read off the modules that ask for attention; no change is silently without effect."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from clearhead.errors import InputError, LensError, NotWatchableError, OutsideError
from clearhead.lens.huggingface import attention, editing
from clearhead.lens.huggingface.places import heads_in
from clearhead.lens.seen import Kind
from clearhead.lens.watch import watch
from clearhead.lens.whatif import Means, silence
from clearhead.lens.whatif.edited import widths_of
from tests.lens.foreign import BART, GROUPED, T5, TOKENS, build, inputs
from tests.lens.test_watch_refusals import one_line, untouched

IDS = torch.arange(3, 12)[None]
UNEQUAL: dict[str, Any] = {**BART, "encoder_layers": 1, "decoder_layers": 3, "encoder_attention_heads": 2}
PLAIN = {
    "LongT5ForConditionalGeneration": "eager",
    "LongT5EncoderModel": "eager",
    "BigBirdPegasusForConditionalGeneration": "eager",
}
"""What runs by default of those that have no sdpa."""
LONG: dict[str, Any] = {**T5, "local_radius": 4, "encoder_attention_type": "local"}


def made(cls: str, **keys: Any) -> Any:
    """A tiny random model of this class."""
    kind = getattr(transformers, cls)
    model = kind._from_config(kind.config_class(**keys), attn_implementation=PLAIN.get(cls, "sdpa")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                parameter.normal_(0, 0.2)
    return model


def bart() -> Any:
    """Its cache has as many layers as an encoder would have: transformers refuses it where the decoder has more."""
    return made("BartForCausalLM", **UNEQUAL, use_cache=False)


def whisper() -> Any:
    return made(
        "WhisperForCausalLM",
        **UNEQUAL,
        use_cache=False,
        num_mel_bins=8,
        max_target_positions=32,
        max_source_positions=12,
    )


def crossing() -> Any:
    return made("GPT2LMHeadModel", **TOKENS, n_embd=32, n_layer=2, n_head=4, add_cross_attention=True)


def lfm2() -> Any:
    layers = ["conv", "full_attention", "conv", "full_attention"]
    return made("Lfm2ForCausalLM", **{**GROUPED, "num_hidden_layers": 4}, layer_types=layers)


def jamba() -> Any:
    mamba = {"mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False, "num_experts": 2}
    places = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 4, "expert_layer_offset": 3}
    return made("JambaForCausalLM", **{**GROUPED, "num_hidden_layers": 4}, **mamba, **places)


def longt5() -> Any:
    return made("LongT5ForConditionalGeneration", **LONG)


def bigbird() -> Any:
    return made("BigBirdPegasusForConditionalGeneration", **BART, attention_type="original_full")


def memory(*_: Any) -> dict[str, Tensor]:
    return {"input_ids": IDS, "encoder_hidden_states": torch.randn(1, 6, 32)}


def pair(*_: Any) -> dict[str, Tensor]:
    return {"input_ids": IDS.repeat(1, 2), "decoder_input_ids": IDS}


def padded(*_: Any) -> dict[str, Tensor]:
    real = torch.ones(1, 18, dtype=torch.long)
    real[:, 15:] = 0
    return {**pair(), "attention_mask": real}


def alone(*_: Any) -> dict[str, Tensor]:
    return {"input_ids": IDS}


CASES: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Tensor]], Kind, int, str]] = {
    "bart": (bart, alone, "decoder", 2, "model.decoder.layers.2.self_attn.out_proj"),
    "bart cross": (bart, memory, "cross", 2, "model.decoder.layers.2.encoder_attn.out_proj"),
    "whisper": (whisper, alone, "decoder", 2, "model.decoder.layers.2.self_attn.out_proj"),
    "gpt2 cross": (crossing, memory, "cross", 1, "transformer.h.1.crossattention.c_proj"),
    "lfm2": (lfm2, alone, "decoder", 3, "model.layers.3.self_attn.out_proj"),
    "jamba": (jamba, alone, "decoder", 1, "model.layers.1.self_attn.o_proj"),
    "longt5": (longt5, pair, "decoder", 1, "decoder.block.1.layer.0.SelfAttention.o"),
    "bigbird_pegasus": (bigbird, padded, "cross", 1, "model.decoder.layers.1.encoder_attn.out_proj"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_head_that_is_named_is_the_one_that_is_silenced(case: str) -> None:
    """Held to doing it by hand, at the projection of the layer of that number; and what can be changed is what runs."""
    make, give, kind, layer, at = CASES[case]
    model, given = make(), give()

    def zeroed(_: Any, inside: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inside[0].unflatten(-1, (4, -1)) * torch.tensor([1.0, 1, 0, 1])[:, None]
        return (x.flatten(-2), *inside[1:])

    with torch.inference_mode():
        before = model(**given)[0]
        with silence(model, [(layer, 2)], kind=kind), watch(model) as seen:
            found = model(**given)[0]
        handle = model.get_submodule(at).register_forward_pre_hook(zeroed)
        expected = model(**given)[0]
        handle.remove()
    assert not torch.allclose(before, expected, atol=1e-5)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert seen.call(layer, kind).module == at.rpartition(".")[0] and untouched(model)
    ran = {(each, n): seen.n_heads(each, n) for each in seen.kinds for n in seen.layers(each)}
    assert {place: width for place, width in widths_of(model).items() if place in ran} == ran


@pytest.mark.parametrize("make", [lfm2, jamba])
@pytest.mark.usefixtures("as_a_user")
def test_layers_without_attention_keep_the_numbers_of_the_others(make: Callable[[], Any]) -> None:
    model = make()
    for block in (lambda: silence(model, [(2, 0)]), lambda: watch(model, layers=[2])):
        match = "layer 2 has no attention of its own; choose one of 1, 3"
        with pytest.raises(OutsideError, match=match) as caught, block():
            raise AssertionError("entered")
        one_line(caught.value)
    with pytest.raises(OutsideError, match="layer 4 is outside the model"), silence(model, [(4, 0)]):
        pass
    with torch.inference_mode(), watch(model, layers=[3]) as seen:
        model(IDS)
    assert seen.layers() == (3,)


@pytest.mark.usefixtures("as_a_user")
def test_attention_that_asks_for_no_kernel_is_refused() -> None:
    """LongT5's local encoder and BigBird's compute theirs by themselves."""
    for make in (longt5, bigbird):
        model = make()
        with pytest.raises(OutsideError, match="no 'encoder'") as caught, silence(model, [(0, 0)], kind="encoder"):
            raise AssertionError("entered")
        one_line(caught.value)
    lonely = made("LongT5EncoderModel", **LONG)
    with (
        pytest.raises(NotWatchableError, match="no attention of LongT5EncoderModel") as said,
        silence(lonely, [(0, 0)]),
    ):
        raise AssertionError("entered")
    one_line(said.value)


@pytest.mark.usefixtures("as_a_user")
def test_what_never_ran_is_told_when_the_block_ends() -> None:
    decoder, dropped = bart(), build("bart")
    dropped.model.decoder.layerdrop = 1.0
    cases: list[tuple[Any, Kind, Callable[[], object]]] = [
        (decoder, "cross", lambda: decoder(IDS)),
        (dropped.train(), "decoder", lambda: dropped(**inputs("bart"))),
        (both := build("t5"), "decoder", lambda: both.get_encoder()(IDS)),
    ]
    for model, kind, run in cases:
        match = f"its {kind} layer 1 never asked .* no effect"
        with pytest.raises(LensError, match=match) as caught, silence(model, [(1, 0)], kind=kind):
            run()
        one_line(caught.value)
        assert untouched(model)
        with silence(model, [(1, 0)], kind=kind):  # it was not run at all
            pass
        with pytest.raises(RuntimeError, match="mine"), silence(model, [(1, 0)], kind=kind):
            run()
            raise RuntimeError("mine")


@pytest.mark.usefixtures("as_a_user")
def test_means_of_what_ran() -> None:
    """References need not run the whole of a model; what they did not run has no mean."""
    model, both = bart(), build("t5")
    with torch.inference_mode():
        means = Means.over(model, [lambda: model(IDS)])
        assert {kind for kind, _ in means.vectors} == {"decoder"} and len(means.vectors) == 3
        with silence(model, [(2, 3)], how=means, kind="decoder"):
            model(IDS)
        means = Means.over(both, [lambda: both.get_encoder()(IDS)])
    assert set(means.vectors) == {("encoder", 0), ("encoder", 1)}
    match = "layer 1 of the decoder did not run in the reference"
    with pytest.raises(InputError, match=match) as caught, silence(both, [(1, 0)], how=means, kind="decoder"):
        raise AssertionError("entered")
    one_line(caught.value)


@pytest.mark.parametrize(("groups", "inner"), [(2, 1), (3, 1), (14, 1), (1, 2), (2, 2)])
def test_alberts_layers_are_numbered_in_the_order_in_which_they_run(groups: int, inner: int) -> None:
    layers = 18 if groups == 14 else 4
    keys = {**GROUPED, "embedding_size": 16, "num_hidden_layers": layers, "num_hidden_groups": groups}
    model = made("AlbertModel", **keys, inner_group_num=inner)
    with torch.inference_mode():
        with watch(model) as seen:
            whole = model(IDS)[0]
            model(IDS)
        assert seen.layers() == tuple(range(layers * inner))
        assert widths_of(model) == {("encoder", layer): 4 for layer in range(layers * inner)}
        assert {seen.n_calls(layer=layer) for layer in seen.layers()} == {2}
        model.set_attn_implementation("eager")
        for layer, weights in enumerate(model(IDS, output_attentions=True).attentions):
            for call in (0, 1):
                found = seen.map(layer, 1, call=call).dense()
                torch.testing.assert_close(found, weights[0, 1], atol=1e-6, rtol=0)
        model.set_attn_implementation("sdpa")
        with silence(model, [(1, 2)]), watch(model) as changed:
            assert not torch.allclose(model(IDS)[0], whole, atol=1e-5)
    torch.testing.assert_close(changed.map(1, 1).dense(), seen.map(1, 1).dense(), atol=1e-6, rtol=0)
    assert not torch.allclose(changed.map(2, 1).dense(), seen.map(2, 1).dense(), atol=1e-6)


@pytest.mark.usefixtures("as_a_user")
def test_heads_are_counted_where_they_are_joined() -> None:
    """DETR's attention does not say how many it has; one that says wrong is told when it runs."""
    from transformers.models.detr.modeling_detr import DetrSelfAttention

    config = transformers.DetrConfig(d_model=32, encoder_attention_heads=4, decoder_attention_heads=8)
    assert heads_in(DetrSelfAttention(config, hidden_size=32, num_attention_heads=8)) == 8
    with pytest.raises(LensError, match="Linear does not tell how many heads"):
        heads_in(torch.nn.Linear(2, 2))
    model = build("llama")
    model.model.layers[0].self_attn.num_heads = 8
    with pytest.raises(LensError, match="runs 4 heads and tells of 8") as caught, silence(model, [(0, 1)]):
        model(IDS)
    one_line(caught.value)
    assert untouched(model)


# ── threads, and Ctrl-C ──────────────────────────────────────────────────────────────────────────────────────────


def test_another_thread_is_told_that_no_weights_are_written() -> None:
    """It has every head meanwhile, but not `output_attentions`, which would come back empty."""
    model = build("gpt2")
    ends: list[object] = []

    def run(**asked: Any) -> None:
        try:
            with torch.inference_mode():
                ends.append(model(IDS, **asked)[0])
        except LensError as error:
            ends.append(one_line(error))

    with torch.inference_mode():
        plain = model(IDS)[0]
    with silence(model, [(0, 1)]):
        for asked in ({}, {"output_attentions": True}):
            thread = threading.Thread(target=run, kwargs=asked)
            thread.start()
            thread.join(20)
    whole, said = ends
    assert isinstance(whole, Tensor) and "output_attentions" in str(said)
    torch.testing.assert_close(whole, plain, atol=1e-6, rtol=0)
    assert untouched(model)


def test_ctrl_c_while_the_edits_are_put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(weakref.WeakKeyDictionary[Any, Any]):
        left = 5

        def __setitem__(self, key: Any, value: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            super().__setitem__(key, value)

    model, standing = build("gpt2"), Interrupted()
    for module in (attention, editing):
        monkeypatch.setattr(module, "editings", standing)
    with pytest.raises(KeyboardInterrupt), silence(model, [(0, 1)]):
        raise AssertionError("entered")
    assert untouched(model) and model.config._attn_implementation == "sdpa" and not any(standing.values())


def test_two_models_in_one_have_a_place_for_each_layer() -> None:
    """An ALBERT beside another encoder is numbered after it; the second of two BERTs is a decoder, all of it."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    vit = transformers.ViTConfig(**sizes, image_size=12, patch_size=4)
    albert = transformers.AlbertConfig(**sizes, embedding_size=16, vocab_size=60)
    both = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(vit, albert)
    model: Any = transformers.VisionTextDualEncoderModel(both).eval()
    assert widths_of(model) == {("encoder", layer): 4 for layer in range(6)}
    given = {"input_ids": torch.arange(3, 12)[None], "pixel_values": torch.randn(1, 3, 12, 12)}
    with torch.inference_mode():
        plain = model(**given)
        with silence(model, [(0, 1)]):
            image = model(**given)
        with silence(model, [(3, 1)]):
            text = model(**given)
    assert torch.equal(plain.text_embeds, image.text_embeds) and not torch.equal(plain.image_embeds, image.image_embeds)
    assert torch.equal(plain.image_embeds, text.image_embeds) and not torch.equal(plain.text_embeds, text.text_embeds)

    bert = transformers.BertConfig(vocab_size=60, **sizes)
    reader = transformers.BertConfig(vocab_size=60, **sizes, is_decoder=True, add_cross_attention=True)
    two: Any = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(bert, reader)
    kinds = {"encoder", "decoder", "cross"}
    assert set(widths_of(transformers.EncoderDecoderModel(two))) == {(kind, n) for kind in kinds for n in range(3)}
