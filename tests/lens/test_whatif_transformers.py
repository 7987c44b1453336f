"""Heads of transformers models, silenced and patched: as if done by hand, at the input of the output projection."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from clearhead.errors import InputError, LensError, NotWatchableError, OutsideError
from clearhead.lens.seen import Kind
from clearhead.lens.watch import watch
from clearhead.lens.whatif import AtTemperature, Means, Outputs, cut, patch, rescore, silence
from clearhead.lens.whatif.edited import widths_of
from tests.lens.foreign import FAMILIES, build, inputs
from tests.lens.test_watch_refusals import untouched

HEADS = 4
CASES: list[tuple[str, Kind]] = []
for _name, _family in FAMILIES.items():
    _kinds: dict[str, tuple[Kind, ...]] = {"encoder": ("encoder",), "decoder": ("decoder",), "image": ("encoder",)}
    CASES += [(_name, kind) for kind in _kinds.get(_family.reads, ("encoder", "decoder", "cross"))]

LAST = ("dense", "out_lin", "Wo", "c_proj", "out_proj", "o_proj", "o")
"""What the module that joins the heads is called."""


def joining(model: Any, kind: Kind, layer: int) -> torch.nn.Module:
    """The output projection of that attention, found by its name."""
    found = []
    for name, module in model.named_modules():
        parts = name.split(".")
        inside = [part for part in parts[:-1] if "att" in part.lower()]
        cross = bool(re.search(r"encoder_attn|EncDecAttention", name))
        side = "decoder" if "decoder" in parts else "encoder" if "encoder" in parts else kind
        if parts[-1] in LAST and inside and cross == (kind == "cross") and (kind == "cross" or side == kind):
            found.append(module)
    return found[layer] if len(found) > layer else found[0]  # one for all layers


@contextmanager
def by_hand(model: Any, kind: Kind, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The heads' outputs, side by side at the input of the projection, changed as (B, T, H, Dv)."""
    runs = 0

    def hook(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal runs
        runs += 1
        if isinstance(model.config, object) and shared(model) and runs - 1 != layer:
            return given
        x = given[0].unflatten(-1, (HEADS, -1))
        return (change(x).flatten(-2), *given[1:])

    handle = joining(model, kind, layer).register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def shared(model: Any) -> bool:
    return bool(model.config.model_type == "albert")


def said(model: Any, given: dict[str, Tensor]) -> Tensor:
    output: Tensor = model(**given)[0]
    return output


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_silenced_head_is_zero_where_heads_are_joined(name: str, kind: Kind) -> None:
    model, given = build(name), inputs(name)
    with torch.inference_mode():
        before = said(model, given)
        with silence(model, [(1, 2)], kind=kind):
            found = said(model, given)
        assert torch.equal(before, said(model, given)) and untouched(model)

        def zeroed(x: Tensor) -> Tensor:
            return x * torch.tensor([1.0, 1, 0, 1])[:, None]

        with by_hand(model, kind, 1, zeroed):
            expected = said(model, given)
    assert not torch.allclose(before, expected, atol=1e-5)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_heads_are_those_that_are_seen(name: str, kind: Kind) -> None:
    """What the config tells, before the model has run, is what runs."""
    model = build(name)
    with torch.inference_mode(), watch(model) as seen:
        model(**inputs(name))
    ran = {(each, layer): seen.n_heads(each, layer) for each in seen.kinds for layer in seen.layers(each)}
    assert dict(widths_of(model)) == ran and kind in seen.kinds


@pytest.mark.parametrize(
    ("name", "kind"), [("bert", "encoder"), ("llama", "decoder"), ("t5", "cross"), ("albert", "encoder")]
)
def test_the_mean_and_another_text_s_output(name: str, kind: Kind) -> None:
    """The mean over texts, and activation patching, whole and at chosen places."""
    model = build(name)
    given, other = inputs(name), inputs(name)
    one, two = ({key: x[:1] for key, x in each.items()} for each in (given, other))
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x[0])
        return x

    with torch.inference_mode():
        means = Means.over(model, [lambda: model(**one), lambda: model(**two)])
        outputs = Outputs.of(model, lambda: model(**two))
        for each in (one, two):
            with by_hand(model, kind, 1, keep):
                model(**each)
        mean = torch.cat(kept).mean(0)  # (H, Dv)
        torch.testing.assert_close(means.vectors[kind, 1].float(), mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(outputs.vectors[kind, 1], kept[1].transpose(0, 1), atol=1e-5, rtol=0)
        theirs = kept[1]

        def put(x: Tensor, value: Tensor, to: slice = slice(None)) -> Tensor:
            x = x.clone()
            x[:, to, 3] = value
            return x

        pairs = [(0, 2), (1, 3)]
        for block, change in (
            (lambda: silence(model, [(1, 3)], how=means, kind=kind), lambda x: put(x, mean[3])),
            (lambda: patch(model, [(1, 3)], outputs, kind=kind), lambda x: put(x, theirs[:, 3])),
            (
                lambda: patch(model, [(1, 3)], outputs, at=pairs, kind=kind),
                lambda x: put(x, theirs[2:4, 3], slice(0, 2)),
            ),
        ):
            with block():
                found = said(model, one)
            with by_hand(model, kind, 1, change):
                expected = said(model, one)
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert untouched(model)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "bart"])
def test_watching_shows_what_ran_and_blocks_leave_in_any_order(name: str, inside: bool) -> None:
    model, given = build(name), inputs(name)
    kind: Kind = "decoder"
    with torch.inference_mode():
        with watch(model) as plain:
            before = said(model, given)
        with silence(model, [(0, 1)], kind=kind):
            silenced = said(model, given)
        blocks = [watch(model), silence(model, [(0, 1)], kind=kind)]
        first, second = blocks if inside else blocks[::-1]
        a = first.__enter__()
        b = second.__enter__()
        torch.testing.assert_close(said(model, given), silenced, atol=1e-6, rtol=0)
        first.__exit__(None, None, None)
        torch.testing.assert_close(said(model, given), silenced if inside else before, atol=1e-5, rtol=1e-5)
        second.__exit__(None, None, None)
        assert torch.equal(said(model, given), before) or name == "gemma2"
    seen: Any = a if inside else b
    assert untouched(model)
    assert torch.equal(seen.map(0, 1, kind, call=0).dense(), plain.map(0, 1, kind).dense())
    assert not torch.allclose(seen.map(1, 1, kind, call=0).dense(), plain.map(1, 1, kind).dense(), atol=1e-6)


def test_writing_without_a_head() -> None:
    """Every step of generation, with a cache, is without it."""
    model = build("llama")
    ids = torch.randint(3, 60, (1, 6))
    ask: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        with silence(model, [(0, 1), (1, 3)]):
            written = model.generate(ids, **ask)
            whole = model(written[:, :-1]).logits[0, 5:].argmax(-1)
        assert torch.equal(whole, written[0, 6:])
    assert untouched(model)


def test_another_thread_has_the_model_whole() -> None:
    model, given = build("gpt2"), inputs("gpt2")
    with torch.inference_mode():
        before = said(model, given)
    found: list[Tensor] = []

    def run() -> None:
        with torch.inference_mode():
            for _ in range(20):
                found.append(said(model, given))

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(10):
        with torch.inference_mode(), silence(model, [(0, 1)]):
            assert not torch.allclose(said(model, given), before, atol=1e-5)
    thread.join()
    assert len(found) == 20 and untouched(model)
    for each in found:
        torch.testing.assert_close(each, before, atol=1e-6, rtol=0)


def test_the_model_is_put_back_after_an_exception() -> None:
    model = build("bert")
    with pytest.raises(RuntimeError, match="mine"), silence(model, [(0, 0)]):
        raise RuntimeError("mine")
    assert untouched(model) and model.config._attn_implementation == "sdpa"


@pytest.mark.usefixtures("as_a_user")
def test_refusals_are_one_line() -> None:
    import transformers

    model, both = build("gpt2"), build("t5")
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(n_layer=1, n_head=4, hidden_size=32, vocab_size=60))
    for block, error, words in [
        (lambda: silence(model, [(2, 0)]), OutsideError, "layer 2 is outside the model; choose 0…1"),
        (lambda: silence(model, [(0, 4)]), OutsideError, "head 4 is outside layer 0"),
        (lambda: silence(model, [(0, 0)], kind="encoder"), OutsideError, "no 'encoder'"),
        (lambda: silence(both, [(0, 0)]), LensError, "several kinds"),
        (lambda: silence(model, []), InputError, "no head was named"),
        (lambda: cut(model, None, [1]), LensError, "can be silenced and patched; for other experiments load it"),
        (lambda: rescore(model, AtTemperature(2.0)), LensError, "load it with clearhead.load"),
        (lambda: silence(bloom, [(0, 0)]), NotWatchableError, "computes its attention by itself"),
    ]:
        with pytest.raises(error, match=words) as caught, block():
            raise AssertionError("entered")
        assert "\n" not in str(caught.value)
    short = Outputs.of(model, lambda: model(torch.arange(3, 8)[None]))
    with pytest.raises(InputError, match="9 and 5 tokens long"), patch(model, [(0, 0)], short):
        model(torch.arange(3, 12)[None])
    with pytest.raises(LensError, match="output_attentions"), silence(model, [(0, 0)]):
        model(torch.arange(3, 12)[None], output_attentions=True)
    assert untouched(model) and untouched(bloom)
