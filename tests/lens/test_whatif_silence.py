"""Silencing: the model without a head is the model whose head's columns of o_proj are zero; and it is put back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from clearhead.errors import InputError, LensError, OutsideError
from clearhead.lens.watch import watch
from clearhead.lens.whatif import Means, silence
from clearhead.model.attention import Attention
from clearhead.model.kernels import Scoring, fused
from clearhead.model.transformer import EncoderDecoder, build
from tests.lens.test_watch import CONFIGS, both


def kernels(model: torch.nn.Module) -> set[Any]:
    return {module.kernel for module in model.modules() if isinstance(module, Attention)}


def without_columns(model: torch.nn.Module, layer: int, head: int, ids: Tensor) -> Tensor:
    """The slow twin: the head's columns of o_proj set to zero, by hand."""
    attention = model.decoder.block(layer).attention  # type: ignore[union-attr]
    width = attention.d_head
    weight = attention.o_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:, head * width : (head + 1) * width] = 0
        logits = model(ids).logits
        weight.copy_(kept)
    return logits


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "shared"])
def test_a_silenced_head_is_a_head_whose_columns_are_zero(name: str) -> None:
    model = build(CONFIGS[name]).eval()
    ids = torch.randint(60, (2, 20))
    with torch.inference_mode():
        before = model(ids).logits
        with silence(model, [(1, 3)]):
            silenced = model(ids).logits
        assert torch.equal(before, model(ids).logits) and kernels(model) == {fused}
    torch.testing.assert_close(silenced, without_columns(model, 1, 3, ids), atol=1e-6, rtol=0)
    assert not torch.allclose(silenced, before, atol=1e-4)


def test_in_a_shared_block_only_the_layer_that_was_named() -> None:
    model = build(CONFIGS["shared"]).eval()
    ids = torch.randint(60, (1, 8))
    calls = 0

    def slow(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
        nonlocal calls
        calls += 1
        out = fused(q, k, v, scoring)
        return out * torch.tensor([1.0, 0, 1, 1])[None, :, None, None] if calls == 2 else out

    with torch.inference_mode():
        with silence(model, [(1, 1)]):
            fast = model(ids).logits
            assert torch.equal(fast, model(ids).logits)
        attention = model.decoder.block(0).attention  # type: ignore[union-attr]
        attention.kernel = slow
        torch.testing.assert_close(fast, model(ids).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
def test_an_encoder_decoder_has_heads_of_three_kinds(kind: Any) -> None:
    model = build(both()).eval()
    assert isinstance(model, EncoderDecoder)
    source, target = torch.randint(60, (1, 9)), torch.randint(60, (1, 5))
    with torch.inference_mode():
        before = model(source, target)
        with silence(model, [(0, 2)], kind=kind):
            after = model(source, target)
        assert torch.equal(before.memory, after.memory) == (kind != "encoder")
        assert not torch.allclose(before.logits, after.logits, atol=1e-5)
        with pytest.raises(LensError, match="say which"), silence(model, [(0, 2)]):
            pass


def test_the_mean_is_over_all_tokens_of_the_references() -> None:
    model = build(CONFIGS["gpt2"]).eval()
    texts = [torch.randint(60, (1, length)) for length in (5, 9)]
    outs: list[Tensor] = []

    def keep(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
        outs.append(fused(q, k, v, scoring))
        return outs[-1]

    with torch.inference_mode():
        means = Means.over(model, [lambda ids=ids: model(ids) for ids in texts])
        attention = model.decoder.block(1).attention  # type: ignore[union-attr]
        attention.kernel = keep
        for ids in texts:
            model(ids)
        mean = torch.cat([out[0] for out in outs], dim=1).mean(1)
        torch.testing.assert_close(means.vectors["decoder", 1].float(), mean, atol=1e-6, rtol=0)

        def slow(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
            out = fused(q, k, v, scoring).clone()
            out[:, 2] = mean[2]
            return out

        attention.kernel = slow
        expected = model(texts[0]).logits
        attention.kernel = fused
        with silence(model, [(1, 2)], how=means):
            torch.testing.assert_close(model(texts[0]).logits, expected, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="no reference text"):
        Means.over(model, [])


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "shared"])
def test_watching_a_silenced_model_shows_what_ran(name: str, inside: bool) -> None:
    """Layers up to the silenced head read as they did; later ones read what the silenced model gives them."""
    model = build(CONFIGS[name]).eval()
    ids = torch.randint(60, (1, 12))
    with torch.inference_mode():
        with watch(model) as plain:
            before = model(ids).logits
        with silence(model, [(0, 1), (1, 0)]):
            silenced = model(ids).logits
        contexts = [watch(model), silence(model, [(0, 1), (1, 0)])]
        first, second = contexts if inside else contexts[::-1]
        with first as a, second as b:
            assert torch.equal(model(ids).logits, silenced)
        seen = a if inside else b
        assert torch.equal(model(ids).logits, before) and kernels(model) == {fused}
    assert seen is not None
    assert torch.equal(seen.map(0, 1).dense(), plain.map(0, 1).dense())
    assert not torch.allclose(seen.map(2, 1).dense(), plain.map(2, 1).dense(), atol=1e-5)
    torch.testing.assert_close(seen.map(2, 1).row_sums(), torch.ones(12))


def test_experiments_stand_in_one_another_and_leave_in_any_order() -> None:
    model = build(CONFIGS["gpt2"]).eval()
    ids = torch.randint(60, (1, 7))
    with torch.inference_mode():
        with silence(model, [(0, 1), (0, 2), (2, 3)]):
            together = model(ids).logits
        with silence(model, [(0, 1)]), silence(model, [(0, 2), (2, 3)]):
            assert torch.equal(together, model(ids).logits)
        first, second = silence(model, [(0, 1)]), silence(model, [(0, 2)])
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        with silence(model, [(0, 1)]):
            pass
        only = model(ids).logits
        second.__exit__(None, None, None)
        assert kernels(model) == {fused}
        with silence(model, [(0, 2)]):
            assert torch.equal(only, model(ids).logits)


def test_the_model_is_put_back_after_an_exception() -> None:
    model = build(CONFIGS["gpt2"]).eval()
    with pytest.raises(RuntimeError, match="mine"), silence(model, [(0, 0)]):
        raise RuntimeError("mine")
    assert kernels(model) == {fused} and not model._forward_pre_hooks


def test_threads_take_turns_and_never_see_another_s_experiment() -> None:
    model = build(CONFIGS["gpt2"]).eval()
    ids = torch.randint(60, (1, 7))
    with torch.inference_mode():
        plain = model(ids).logits
        expected = []
        for layer in range(3):
            with silence(model, [(layer, 0)]):
                expected.append(model(ids).logits)
    wrong: list[str] = []
    inside = threading.Lock()

    def work(layer: int) -> None:
        with torch.inference_mode():
            for _ in range(5):
                with silence(model, [(layer, 0)]):
                    if not inside.acquire(blocking=False):
                        wrong.append("two at a time")
                        return
                    if not torch.equal(model(ids).logits, expected[layer]):
                        wrong.append("another's experiment")
                    inside.release()

    def read() -> None:
        with torch.inference_mode():
            wrong.extend("not the whole model" for _ in range(20) if not torch.equal(model(ids).logits, plain))

    threads = [threading.Thread(target=work, args=(layer,)) for layer in range(3)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and kernels(model) == {fused}


def test_gradients_flow_around_a_silenced_head() -> None:
    model = build(CONFIGS["gpt2"]).train()
    with silence(model, [(0, 1)]):
        model(torch.randint(60, (1, 7))).logits.square().mean().backward()
    gradient = model.decoder.block(0).attention.v_proj.weight.grad  # type: ignore[union-attr]
    assert float(gradient[8:16].abs().max()) == 0.0 and float(gradient[:8].abs().max()) > 0.0


def test_refusals_are_one_line(as_a_user: None) -> None:
    model = build(CONFIGS["gpt2"])
    for heads, error, words in [
        ([(3, 0)], OutsideError, "layer 3 is outside"),
        ([(0, 4)], OutsideError, "head 4 is outside layer 0"),
        ([(0, -1)], OutsideError, "head -1"),
        (["0.1"], InputError, "pairs of layer and head"),
        ([3], InputError, "pairs of layer and head"),
    ]:
        with pytest.raises(error, match=words), silence(model, heads):  # type: ignore[arg-type]
            pass
    with pytest.raises(OutsideError, match="no 'cross'"), silence(model, [(0, 0)], kind="cross"):
        pass
    with pytest.raises(InputError, match="not a choice"), silence(model, [(0, 0)], how="mean"):  # type: ignore[arg-type]
        pass
    with pytest.raises(LensError, match="no attention of clearhead's"), silence(torch.nn.Linear(2, 2), [(0, 0)]):
        pass
    assert kernels(model) == {fused}
