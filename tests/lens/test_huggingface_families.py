"""Every family of transformers that can be watched: each weight is eager's, outputs stay, nothing is left behind."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from clearhead.lens.seen import Seen
from clearhead.lens.watch import watch
from tests.lens.foreign import FAMILIES, TEXTS, build, inputs, told, twins

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
USUAL = [(name, "none") for name in FAMILIES] + [
    (name, "left" if FAMILIES[name].reads == "decoder" else "right") for name in TEXTS
]
OTHER = [(name, "right" if FAMILIES[name].reads == "decoder" else "left") for name in TEXTS]
CASES = [*USUAL, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHER)]


def furthest(seen: Seen, expected: dict[str, tuple[torch.Tensor, ...]], real: torch.Tensor | None) -> float:
    """The largest difference of any weight of any layer, head, kind and text; what padding reads is left out."""
    assert set(seen.kinds) <= set(expected)
    worst = 0.0
    for kind in seen.kinds:
        assert seen.n_layers(kind) == len(expected[kind])
        for layer, weights in enumerate(expected[kind]):
            assert seen.n_heads(kind, layer) == weights.shape[1]
            for batch in range(weights.shape[0]):
                rows = slice(None)
                if real is not None and kind != "cross" and weights.shape[2] == real.shape[1]:
                    rows = real[batch].bool()
                found = seen.call(layer, kind).weights(*map(torch.arange, weights.shape[2:]), batch).to(weights.device)
                worst = max(worst, float((found - weights[batch])[:, rows].abs().max()))
    return worst


@pytest.mark.parametrize(("name", "padding"), CASES)
def test_every_weight_is_eagers(name: str, padding: str) -> None:
    """Within 1e-6 in float32; outputs to the bit those of sdpa, to rounding those of eager.

    gemma2 and gpt_oss run eager by default (softcap, sinks): watched, the blockwise kernel runs in its place.
    """
    model, eager = twins(name)
    given = inputs(name, padding)
    real = given.get("attention_mask")
    with torch.inference_mode():
        before = model(**given)[0]
        with watch(model) as seen:
            during = model(**given)[0]
        after = model(**given)[0]
        assert furthest(seen, told(eager, given), real) <= 1e-6
    assert torch.equal(before, after)
    assert model.config._attn_implementation == FAMILIES[name].plain
    at = real.bool() if real is not None and before.shape[1] == real.shape[1] else slice(None)
    if FAMILIES[name].plain == "sdpa":
        assert torch.equal(before[at], during[at])
    else:
        torch.testing.assert_close(before[at], during[at], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "mt5", "bart", "whisper"])  # others' softmax is float32
def test_every_weight_is_eagers_in_float64(name: str) -> None:
    model, eager = (one.double() for one in twins(name))
    given = {key: x.double() if x.is_floating_point() else x for key, x in inputs(name).items()}
    with torch.inference_mode():
        with watch(model) as seen:
            model(**given)
        assert furthest(seen, told(eager, given), None) <= 1e-12


@pytest.mark.parametrize("name", ["albert", "gpt2", "gemma3", "whisper"])
def test_nothing_is_left_behind(name: str) -> None:
    """After the block, and after an exception in it: the model can be freed, and a release frees what was kept."""
    model = build(name)
    given = inputs(name)
    hooks = len(model._forward_pre_hooks), len(model._forward_hooks)
    for fails in (False, True):
        try:
            with torch.inference_mode(), watch(model) as seen:
                model(**given)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
        assert model.config._attn_implementation == FAMILIES[name].plain
        assert hooks == (len(model._forward_pre_hooks), len(model._forward_hooks))
    kept = [weakref.ref(x) for kind in seen.kinds for x in seen.call(0, kind).tensors]
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None  # what was seen holds on to no part of the model
    assert seen.nbytes > 0 and seen.map(0, 0, seen.kinds[0]).shape[0] > 0
    seen.release()
    gc.collect()
    assert seen.nbytes == 0 and all(x() is None for x in kept)


def test_a_t5s_table_of_biases_is_kept_as_distances() -> None:
    """T5 writes its bias out, heads × T × T; what is kept of it grows with T."""
    model = build("t5")
    ids = torch.randint(3, 60, (1, 200))
    with torch.inference_mode(), watch(model) as seen:
        model(input_ids=ids, decoder_input_ids=ids[:, :50])
    for kind, length in (("encoder", 200), ("decoder", 50)):
        for layer in range(2):
            biases: Any = seen.call(layer, kind).scoring.mask.biases  # type: ignore[arg-type]
            assert biases[0].values.shape == (1, 4, 2 * length - 1)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize(("name", "padding"), CASES)
def test_every_weight_is_eagers_on_a_gpu(name: str, padding: str) -> None:
    model, eager = (one.cuda() for one in twins(name))
    given = {key: x.cuda() for key, x in inputs(name, padding).items()}
    real = given.get("attention_mask")
    with torch.inference_mode():
        before = model(**given)[0]
        with watch(model) as seen:
            during = model(**given)[0]
        expected = told(eager, given)
        assert furthest(seen, expected, real) <= 1e-5  # cuBLAS sums in another order than the kernel
    torch.testing.assert_close(before[1], during[1], atol=1e-4, rtol=1e-4)
