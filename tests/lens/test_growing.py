"""Maps that grow while text is written: at any step, and at the end, they are those of one pass over the text."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearhead.errors import LensError, OutsideError, ReleasedError
from clearhead.generate import generate_ids
from clearhead.generate.decode import stream_ids
from clearhead.lens.kept.keep import Half
from clearhead.lens.kept.placed import Plain, Spans
from clearhead.lens.seen import Seen
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.cache import Cache
from clearhead.model.config import ALiBi, AttentionConfig, ModelConfig, RMSNorm, Rotary, T5Bias
from clearhead.model.transformer import Decoder, build
from tests.lens.foreign import build as foreign

QUIET: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def small(**change: Any) -> ModelConfig:
    config = presets.gpt2(n_layers=2, n_heads=4, d_model=32, vocab_size=60, context=64)
    assert config.decoder is not None
    return replace(config, decoder=replace(config.decoder, **change))


def both() -> ModelConfig:
    config = presets.vaswani(vocab_size=60, context=64)
    assert config.encoder is not None and config.decoder is not None
    tiny: dict[str, Any] = {"n_layers": 2, "attention": AttentionConfig(n_heads=4), "position": T5Bias(buckets=8)}
    cross = AttentionConfig(n_heads=4)
    decoder = replace(config.decoder, **tiny, cross_attention=cross)
    return replace(config, d_model=32, encoder=replace(config.encoder, **tiny), decoder=decoder)


CONFIGS = {
    "learned": small(),
    "grouped": small(position=Rotary(), norm=RMSNorm(), attention=AttentionConfig(n_heads=4, n_kv_heads=2)),
    "window": small(attention=AttentionConfig(n_heads=4, window=5)),
    "alibi": small(position=ALiBi()),
    "t5": small(position=T5Bias(buckets=8, max_distance=16)),
    "sinks": small(attention=AttentionConfig(n_heads=4, softcap=3.0, sinks=True)),
}


def prompt(length: int = 7) -> tuple[Tensor, Tensor]:
    """Two prompts, the second padded on the left."""
    ids, real = torch.randint(3, 60, (2, length)), torch.ones(2, length, dtype=torch.bool)
    real[1, :2] = False
    return ids, real


def same(seen: Seen, whole: Seen, real: Tensor, kind: str) -> None:
    """The maps that grew, against one pass over the text; what padding reads is nobody's business."""
    for layer in range(2):
        for head in (0, 3):
            for batch in range(len(real)):
                grown = seen.growing(layer, head, kind, batch=batch)  # type: ignore[arg-type]
                full = whole.map(layer, head, kind, batch=batch).dense()  # type: ignore[arg-type]
                rows = real[batch, : grown.shape[0]]
                wanted = full[: grown.shape[0], : grown.shape[1]]
                torch.testing.assert_close(grown.dense()[rows], wanted[rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_grew_is_one_pass_over_the_text(name: str) -> None:
    model = build(CONFIGS[name]).eval()
    ids, real = prompt()
    with watch(model) as seen:
        text = generate_ids(model, ids, attention_mask=real, max_new_tokens=9, eos=())
    everyone = torch.cat((real, torch.ones(2, 9, dtype=torch.bool)), dim=1)
    with torch.inference_mode(), watch(model) as whole:
        model(text[:, :-1], attention_mask=everyone[:, :-1])
    assert seen.growing(0, 0).shape == (15, 15) and seen.growing(0, 0).n_steps == 9
    same(seen, whole, everyone[:, :-1], "decoder")


def test_every_operation_of_a_map_is_there_and_live() -> None:
    """Between steps, the map has a row more each time; an earlier step can be had back at any time."""
    model = build(small()).eval()
    ids, _ = prompt()
    with watch(model) as seen:
        grown = None
        for step, _new in enumerate(stream_ids(model, ids[:1], max_new_tokens=6, eos=())):
            grown = grown if grown is not None else seen.growing(1, 2)
            assert grown.shape == (7 + step, 7 + step) and len(grown) == 7 + step
            assert grown[-1].shape == (7 + step,)
            torch.testing.assert_close(grown.row_sums(), torch.ones(7 + step))
    assert grown is not None
    dense = grown.dense()
    assert "after 6 steps" in repr(grown)
    torch.testing.assert_close(grown.row(9), dense[9], atol=0, rtol=0)
    torch.testing.assert_close(grown.column(3), dense[:, 3], atol=0, rtol=0)
    torch.testing.assert_close(grown[8:11, 2:5], dense[8:11, 2:5], atol=1e-7, rtol=0)
    torch.testing.assert_close(grown.pool(4, 4).amax(), dense.amax())
    assert grown.hottest(1)[0].weight == pytest.approx(float(dense.max()))
    assert grown.top(10, 1)[0].weight == pytest.approx(float(dense[10].max()))
    for step, earlier in enumerate(grown.steps()):
        assert earlier.shape == (7 + step, 7 + step)
        torch.testing.assert_close(earlier.dense(), dense[: 7 + step, : 7 + step], atol=1e-7, rtol=0)
    assert grown.after(-1).shape == grown.shape
    with pytest.raises(OutsideError, match=r"step 6 is outside .* choose 0…5"):
        grown.after(6)
    seen.release()
    with pytest.raises(ReleasedError):
        grown.row(0)


def test_read_from_another_thread() -> None:
    """While one thread writes, another asks: each answer is of one moment."""
    model = build(small()).eval()
    ids, _ = prompt()
    asked: list[tuple[int, int, float]] = []
    with watch(model) as seen:
        steps = stream_ids(model, ids[:1], max_new_tokens=30, eos=())
        next(steps)
        grown = seen.growing(1, 2)

        def ask() -> None:
            while writer.is_alive():
                sums = grown.row_sums()
                asked.append((len(sums), len(grown), float((sums - 1).abs().max())))

        writer = threading.Thread(target=lambda: list(steps))
        writer.start()
        ask()
    assert grown.shape == (36, 36) and copy.copy(grown).shape == (36, 36)
    lengths = [length for length, _, _ in asked]
    assert lengths == sorted(lengths) and all(length <= after and off < 1e-5 for length, after, off in asked)


def test_an_encoder_decoder_grows_in_both_its_attentions() -> None:
    model = build(both()).eval().double()
    ids, _ = prompt()
    real = torch.ones(2, 7, dtype=torch.bool)
    real[1, 5:] = False
    with watch(model) as seen:
        text = generate_ids(model, ids, attention_mask=real, max_new_tokens=6, eos=(), decoder_start=1)
    with torch.inference_mode(), watch(model) as whole:
        model(ids, text[:, :-1], attention_mask=real)
    assert seen.growing(1, 3, "cross").shape == (6, 7) and seen.growing(1, 3, "encoder").shape == (7, 7)
    for kind in ("decoder", "cross"):
        same(seen, whole, torch.ones_like(text[:, :-1], dtype=torch.bool), kind)
    assert seen.growing(0, 0, "cross").after(2).shape == (3, 7)


def test_memory_grows_with_the_text_alone() -> None:
    """q, k and the log-sum-exp of each token once, whatever the number of steps; as much as one pass keeps."""
    for name in ("learned", "t5"):
        model = build(CONFIGS[name]).eval()
        ids, _ = prompt()
        with watch(model) as seen:
            text = generate_ids(model, ids, max_new_tokens=12, eos=())
        with torch.inference_mode(), watch(model) as whole:
            model(text[:, :-1])
        assert seen.nbytes == whole.nbytes
        tensors = [x for layer in range(2) for c in range(12) for x in seen.call(layer, call=c).own_tensors]
        held = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
        assert sum(held.values()) <= 1.05 * whole.nbytes


def test_a_single_step_is_still_a_map_of_its_own() -> None:
    model = build(small()).eval()
    ids, real = prompt()
    with watch(model, heads=[1, 3], receipts=True) as seen:
        generate_ids(model, ids, attention_mask=real, max_new_tokens=5, eos=())
    full = seen.growing(1, 3, batch=1).dense()
    for call in range(1, 5):
        step = seen.map(1, 3, batch=1, call=call)
        assert step.shape == (1, 7 + call)
        torch.testing.assert_close(step[0], full[6 + call, : 7 + call], atol=1e-7, rtol=0)
        k = seen.call(1, call=call).tensors[1]
        assert k.shape == (2, 2, 7 + call, 8)
    assert seen.map(1, 3, call=4).verify().ok and seen.growing(1, 3, batch=1).verify().ok
    with pytest.raises(OutsideError, match="head 0"):
        seen.growing(1, 0)


def test_halves_grow_as_well() -> None:
    """The prompt's q and k are rounded, and the rows of the steps are the softmax over those keys: they sum to 1."""
    model = build(small()).eval()
    ids, _ = prompt()
    with watch(model, keep=Half()) as seen:
        generate_ids(model, ids, max_new_tokens=5, eos=())
    grown = seen.growing(1, 2)
    torch.testing.assert_close(grown.row_sums(), torch.ones(11))
    torch.testing.assert_close(seen.map(1, 2, call=3)[0], grown[9, :10], atol=1e-6, rtol=0)


def test_a_release_between_steps() -> None:
    """What was there is gone, and what comes is read as it comes: the text that goes on has no beginning any more."""
    model = build(small()).eval()
    ids, _ = prompt()
    with watch(model) as seen:
        steps = stream_ids(model, ids[:1], max_new_tokens=4, eos=())
        next(steps)
        grown = seen.growing(0, 0)
        seen.release()
        assert seen.nbytes == 0
        next(steps)
        assert seen.map(0, 0).shape == (1, 8)
    with pytest.raises(ReleasedError):
        grown.dense()
    with pytest.raises(LensError, match="read on at token 7"):
        seen.growing(0, 0)


def test_each_text_is_a_run() -> None:
    model = build(small()).eval()
    ids, _ = prompt()
    with watch(model) as seen:
        first = generate_ids(model, ids, max_new_tokens=3, eos=())
        second = generate_ids(model, ids[:, :4], max_new_tokens=5, eos=())
    assert seen.growing(0, 0).shape[0] == second.shape[1] - 1
    assert seen.growing(0, 0, run=-2).shape[0] == first.shape[1] - 1
    assert seen.growing(0, 0, run=0).n_steps == 3
    with pytest.raises(OutsideError, match="read 2 texts"):
        seen.growing(0, 0, run=2)


def test_a_cropped_cache_drops_the_rows_that_were_taken_back() -> None:
    """As assisted decoding does: tokens are read, rejected, and others read in their place."""
    model = build(small()).eval()
    assert isinstance(model, Decoder)
    ids = torch.randint(60, (1, 12))
    wrong = torch.randint(60, (1, 3))
    with torch.inference_mode():
        cache: Cache = model.new_cache()
        with watch(model) as seen:
            model(ids[:, :6], cache=cache)
            model(wrong, cache=cache)
            cache.crop(7)  # of the three, one stands
            text = torch.cat((ids[:, :6], wrong[:, :1], ids[:, 7:]), dim=1)
            model(text[:, 7:10], cache=cache)
            model(text[:, 10:], cache=cache)
        with watch(model) as whole:
            model(text)
    same(seen, whole, torch.ones(1, 12, dtype=torch.bool), "decoder")
    assert seen.growing(0, 0).after(1).shape == (9, 9)  # as it was before the crop


def test_what_did_not_grow_is_refused_in_one_line() -> None:
    model = build(small()).eval()
    assert isinstance(model, Decoder)
    ids, _ = prompt()
    with watch(model) as beams:
        generate_ids(model, ids, max_new_tokens=6, num_beams=3, eos=())
    with pytest.raises(LensError, match="beam search") as caught:
        beams.growing(0, 0)
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(beams.map(0, 0, call=3).row_sums(), torch.ones(1))
    cache = model.new_cache()
    with torch.inference_mode():
        model(ids[:1, :4], cache=cache)
        with watch(model) as late:
            model(ids[:1, 4:], cache=cache)
    with pytest.raises(LensError, match="read before watching"):
        late.growing(0, 0)
    with watch(model) as empty, pytest.raises(LensError, match="nothing was seen"):
        empty.growing(0, 0)


@settings(
    max_examples=8,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    pieces=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    padding=st.integers(0, 3),
    prefix=st.booleans(),
)  # fmt: skip
def test_any_pieces_of_any_text(name: str, pieces: list[int], padding: int, prefix: bool) -> None:
    """Read in pieces of any size, under any mask, its first piece with a prefix or without: rows are as they ran."""
    torch.manual_seed(sum(pieces))
    model = build(CONFIGS[name]).eval()
    assert isinstance(model, Decoder)
    edges = [0]
    for size in (4, *pieces):
        edges.append(edges[-1] + size)
    ids = torch.randint(60, (2, edges[-1]))
    real = torch.ones_like(ids, dtype=torch.bool)
    real[1, :padding] = False
    with torch.inference_mode():
        cache = model.new_cache()
        with watch(model) as seen:
            for low, high in pairwise(edges):
                more = {"prefix": torch.tensor([1, 1])} if prefix and not low else {}
                model(ids[:, low:high], attention_mask=real[:, low:high], cache=cache, **more)
    for batch in range(2):
        grown = seen.growing(1, 1, batch=batch)
        dense = grown.dense()
        for call, (low, high) in enumerate(pairwise(edges)):
            alone = seen.map(1, 1, batch=batch, call=call).dense()
            torch.testing.assert_close(dense[low:high, :high], alone, atol=1e-7, rtol=0)
            assert float(dense[low:high, high:].sum()) == 0.0
        torch.testing.assert_close(grown.column_sums(), dense.sum(0), atol=1e-6, rtol=0)
        rules = grown.scoring.mask.rules
        assert any(isinstance(rule, Spans) for rule in rules) == (prefix and len(pieces) > 0)


def test_the_plain_mask_is_the_masks_that_ran() -> None:
    """The fast way (one mask for the whole text) and the slow one (each row under its own) say the same."""
    model = build(CONFIGS["window"]).eval()
    ids, real = prompt()

    def maps() -> list[Tensor]:
        with watch(model) as seen:
            generate_ids(model, ids, attention_mask=real, max_new_tokens=5, eos=())
        return [seen.growing(1, head, batch=batch).dense() for head in range(4) for batch in range(2)]

    fast = maps()
    whole = Plain.then
    try:
        Plain.then = lambda *_: None  # type: ignore[method-assign, assignment]
        slow = maps()
    finally:
        Plain.then = whole  # type: ignore[method-assign]
    for a, b in zip(fast, slow, strict=True):
        assert torch.equal(a, b)


# ── transformers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma3", "gemma2", "gpt_oss", "t5", "bart", "whisper"])
def test_transformers_generation(name: str, cache: str) -> None:
    """Any cache: one that concatenates, a buffer that is written into, a window that lets go of old keys."""
    model = foreign(name)
    ids, real = prompt()
    if name in ("t5", "bart"):
        real = torch.ones_like(real)
        real[1, 5:] = False
    given: dict[str, Any] = {"attention_mask": real.long()}
    ask: dict[str, Any] = {**QUIET, "max_new_tokens": 8} | (
        {"cache_implementation": "static"} if cache == "static" else {}
    )
    if name == "whisper":
        ids, given = torch.randn(2, 8, 24), {}
    with torch.inference_mode():
        plain = model.generate(ids, **given, **ask)
        with watch(model) as seen:
            text = model.generate(ids, **given, **ask)
        if name == "whisper":  # whose generate leaves out the token that it begins with
            text = torch.cat((torch.full_like(text[:, :1], 2), text), dim=1)
        everyone = torch.cat((real, torch.ones(2, text.shape[1] - real.shape[1], dtype=torch.bool)), dim=1)
        with watch(model) as whole:
            if name in ("t5", "bart"):
                model(input_ids=ids, decoder_input_ids=text, attention_mask=real.long())
            elif name == "whisper":
                model(input_features=ids, decoder_input_ids=text)
            else:
                places = (everyone.long().cumsum(1) - 1).clamp(min=0)
                model(input_ids=text, attention_mask=everyone.long(), position_ids=places)
    assert torch.equal(plain, text[:, -plain.shape[1] :])
    if name in ("t5", "bart", "whisper"):
        everyone = torch.ones_like(text, dtype=torch.bool)
        same(seen, whole, everyone, "cross")
        assert seen.growing(0, 0, "cross").shape[0] == text.shape[1] - 1
    assert seen.growing(0, 0, "decoder").shape == (text.shape[1] - 1, text.shape[1] - 1)
    same(seen, whole, everyone, "decoder")
    assert seen.nbytes <= 1.05 * whole.nbytes
    rules = seen.growing(1, 1, "decoder").scoring.mask.rules
    assert not any(isinstance(rule, Spans) for rule in rules)  # one mask for all steps, no table among them


def test_transformers_beams_are_refused_and_single_steps_stand() -> None:
    model = foreign("gpt2")
    ids, _ = prompt()
    with torch.inference_mode(), watch(model) as seen:
        model.generate(ids, num_beams=3, max_new_tokens=6, **QUIET)
    with pytest.raises(LensError, match="beam search"):
        seen.growing(0, 0)
    torch.testing.assert_close(seen.map(1, 1, call=4).row_sums(), torch.ones(1))


@pytest.mark.slow
def test_assisted_decoding_takes_rows_back() -> None:
    """A small model guesses, the large one reads several guesses at once, and its cache drops those that were wrong."""
    model, helper = foreign("llama"), foreign("llama")
    helper.load_state_dict({name: x + 0.03 * torch.randn_like(x) for name, x in model.state_dict().items()})
    ids, _ = prompt()
    ask = QUIET | {"max_new_tokens": 10, "assistant_model": helper}
    with torch.inference_mode():
        with watch(model) as seen:
            text = model.generate(ids[:1], **ask)
        with watch(model) as whole:
            model(text)
    grown = seen.growing(1, 2)
    assert sum(seen.call(1, call=c).shape[0] for c in range(seen.n_calls())) > len(grown) >= 15  # some were taken back
    rows = min(len(grown), text.shape[1] - 1)
    full = whole.map(1, 2).dense()
    torch.testing.assert_close(grown[:rows, :rows], full[:rows, :rows], atol=1e-6, rtol=0)


def test_without_a_cache_each_pass_is_the_whole_text() -> None:
    model = foreign("gpt2")
    ids, _ = prompt()
    with torch.inference_mode(), watch(model) as seen:
        model.generate(ids, max_new_tokens=4, use_cache=False, **QUIET)
    assert seen.growing(0, 0).shape == (10, 10) and seen.growing(0, 0).n_steps == 1
    assert seen.growing(0, 0, run=0).shape == (7, 7)


def test_read_from_a_streamer() -> None:
    """Inside of generate, after each token."""
    model = foreign("llama")
    ids, _ = prompt()
    shapes: list[tuple[int, int]] = []

    class Streamer:
        def put(self, _: Tensor) -> None:
            if shapes or seen.kinds:
                shapes.append(seen.growing(1, 0).shape)

        def end(self) -> None:
            pass

    with torch.inference_mode(), watch(model) as seen:
        model.generate(ids[:1], max_new_tokens=4, streamer=Streamer(), **QUIET)
    assert shapes == [(7, 7), (8, 8), (9, 9), (10, 10)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_transformers_generation_on_a_gpu(name: str) -> None:
    model = foreign(name).cuda()
    ids = torch.randint(3, 60, (2, 7)).cuda()
    for more in ({}, {"cache_implementation": "static"}):
        with torch.inference_mode():
            with watch(model) as seen:
                text = model.generate(ids, max_new_tokens=8, **QUIET, **more)
            with watch(model) as whole:
                model(text)
        for head in range(4):
            grown = seen.growing(1, head).dense()
            torch.testing.assert_close(grown, whole.map(1, head).dense()[:-1, :-1], atol=1e-5, rtol=0)
