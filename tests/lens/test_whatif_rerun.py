"""Models run again with something changed equal models whose kernel is the equation with that change written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearhead.errors import InputError, LensError, NotWatchableError, OutsideError
from clearhead.lens.watch import watch
from clearhead.lens.whatif import (
    AtTemperature,
    Means,
    Outputs,
    WithoutMask,
    WithoutScale,
    WithoutSinks,
    cut,
    output,
    patch,
    rescore,
    silence,
)
from clearhead.lens.whatif.layer import at_temperature, without_edges, without_keys
from clearhead.model.attention import Attention
from clearhead.model.kernels import Scoring, equation, fused
from clearhead.model.masks import Mask
from clearhead.model.transformer import build
from tests.lens.test_watch import CONFIGS, both
from tests.lens.test_whatif_layer import CLOSE
from tests.lens.test_whatif_silence import kernels

HEADS = 4
Weights = Callable[[Tensor, Scoring], Tensor]


def written(change: Weights, layers: set[int] | None = None) -> Callable[[torch.nn.Module], None]:
    """Put the equation, its weights changed by hand, at these layers of a decoder."""

    def install(model: Any) -> None:
        for layer, block in enumerate(model.decoder.blocks):
            if layers is not None and layer not in layers:
                continue

            def slow(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
                groups = q.shape[1] // k.shape[1]
                rows, cols = torch.arange(q.shape[2]), torch.arange(k.shape[2])
                scores = Scoring(scoring.scale, Mask((), scoring.mask.biases), scoring.softcap).scores(q, k, rows, cols)
                weights = change(scores, scoring)
                return weights @ v.repeat_interleave(groups, dim=1)

            block.attention.kernel = slow

    return install


def softmax(scores: Tensor, may: Tensor, sinks: Tensor | None) -> Tensor:
    scores = scores.masked_fill(~may, -torch.inf)
    sink = (
        torch.full_like(scores[..., :1], -torch.inf)
        if sinks is None
        else sinks[None, :, None, None].expand(*scores.shape[:3], 1)
    )
    return torch.cat((scores, sink), dim=-1).softmax(-1).nan_to_num(0.0)[..., :-1]


def may_read(scores: Tensor, scoring: Scoring) -> Tensor:
    allowed = scoring.mask.allowed(torch.arange(scores.shape[2]), torch.arange(scores.shape[3]))
    assert allowed is not None
    return allowed.expand_as(scores).clone()


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "rotary", "window", "softcap and sinks"])
@given(data=st.data())
@settings(max_examples=6, phases=(Phase.explicit, Phase.generate), derandomize=True)
def test_cut_edges_are_the_equation_without_them(name: str, renormalise: bool, data: Any) -> None:
    torch.manual_seed(0)
    model = build(CONFIGS[name]).eval()
    ids = torch.randint(60, (2, 11))
    real = torch.ones(2, 11, dtype=torch.bool)
    if name != "window":
        real[1, :3] = False
    queries = data.draw(st.none() | st.lists(st.integers(0, 10), min_size=1, max_size=3))
    keys = data.draw(st.lists(st.integers(0, 10), min_size=1, max_size=3))
    heads = data.draw(st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))

    def change(scores: Tensor, scoring: Scoring) -> Tensor:
        may = may_read(scores, scoring)
        gone = torch.zeros_like(may)
        for head in range(HEADS) if heads is None else heads:
            for query in range(11) if queries is None else queries:
                gone[:, head, query, keys] = True
        if renormalise:
            return softmax(scores, may & ~gone, scoring.sinks)
        return softmax(scores, may, scoring.sinks).masked_fill(gone, 0.0)

    pairs = None if heads is None else [(1, head) for head in heads]
    with torch.inference_mode():
        with cut(model, queries, keys, pairs, renormalise=renormalise):
            found = model(ids, attention_mask=real).logits
        assert kernels(model) == {fused}
        written(change, None if heads is None else {1})(model)
        expected = model(ids, attention_mask=real).logits
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("heads", [None, [1, 2]])
@pytest.mark.parametrize("name", ["gpt2", "rotary", "softcap and sinks"])
@pytest.mark.parametrize("change", [AtTemperature(1.7), WithoutScale(), WithoutMask(), WithoutSinks()])
def test_another_scoring_is_the_equation_with_it(change: Any, name: str, heads: list[int] | None) -> None:
    model = build(CONFIGS[name]).eval()
    ids = torch.randint(60, (1, 9))
    if isinstance(change, WithoutSinks) and "sinks" not in name:
        with torch.inference_mode(), pytest.raises(InputError, match="no learned sink"), rescore(model, change):
            model(ids)
        assert kernels(model) == {fused}
        return

    def by_hand(scores: Tensor, scoring: Scoring) -> Tensor:
        plain = softmax(scores, may_read(scores, scoring), scoring.sinks)
        may, sinks = may_read(scores, scoring), scoring.sinks
        match change:
            case AtTemperature():
                scores, sinks = scores / 1.7, sinks / 1.7 if sinks is not None else None
            case WithoutMask():
                may = torch.ones_like(may)
            case WithoutSinks():
                sinks = None
            case WithoutScale():
                cap = scoring.softcap
                raw = scores if cap is None else cap * torch.atanh((scores / cap).double())
                raw = raw / scoring.scale
                scores = (raw if cap is None else cap * torch.tanh(raw / cap)).to(scores)
        changed = softmax(scores, may, sinks)
        pick = torch.tensor([heads is None or head in heads for head in range(HEADS)])
        return torch.where(pick[None, :, None, None], changed, plain)

    pairs = None if heads is None else [(1, head) for head in heads]
    with torch.inference_mode():
        before = model(ids).logits
        with rescore(model, change, pairs):
            found = model(ids).logits
        written(by_hand, None if heads is None else {1})(model)
        expected = model(ids).logits
    torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)
    assert not torch.allclose(found, before, atol=1e-6)


def test_a_patched_head_says_what_it_said_in_the_other_text() -> None:
    model = build(CONFIGS["gpt2"]).eval()
    ids, other, longer = (torch.randint(60, (1, length)) for length in (8, 8, 10))
    kept: dict[int, list[Tensor]] = {}

    def keep(layer: int) -> Any:
        def kernel(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
            kept.setdefault(layer, []).append(equation(q, k, v, scoring))
            return kept[layer][-1]

        return kernel

    def slow(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
        out = equation(q, k, v, scoring).clone()
        out[:, 3] = kept[1][0][:, 3]
        return out

    with torch.inference_mode():
        given = Outputs.of(model, lambda: model(other))
        with patch(model, [(1, 3)], given):
            found = model(ids).logits
        everything = Outputs.of(model, lambda: model(ids))
        with patch(model, None, everything):
            torch.testing.assert_close(model(ids).logits, model(ids).logits, **CLOSE)
        attention = model.decoder.block(1).attention  # type: ignore[union-attr]
        attention.kernel = keep(1)
        model(other)
        attention.kernel = slow
        torch.testing.assert_close(found, model(ids).logits, **CLOSE)
        attention.kernel = fused

        given = Outputs.of(model, lambda: model(longer))
        with patch(model, [(1, 3)], given), pytest.raises(InputError, match="8 and 10 tokens long"):
            model(ids)
        with patch(model, [(1, 3), (1, 0)], given, at=[(2, 9), (7, 0)]), watch(model, receipts=True):
            aligned = Outputs.of(model, lambda: model(ids))
        for head in (3, 0):
            assert torch.equal(aligned.vectors["decoder", 1][head, 2], given.vectors["decoder", 1][head, 9])
            assert torch.equal(aligned.vectors["decoder", 1][head, 7], given.vectors["decoder", 1][head, 0])
            same = [0, 1, 3, 4, 5, 6]
            torch.testing.assert_close(
                aligned.vectors["decoder", 1][head, same], everything.vectors["decoder", 1][head, same], **CLOSE
            )
        for at, words in [([(8, 0)], "to-position 8"), ([(0, 10)], "from-position 10")]:
            with patch(model, [(1, 3)], given, at=at), pytest.raises(OutsideError, match=words):
                model(ids)
    assert kernels(model) == {fused}


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
def test_edges_of_an_encoder_decoder(kind: Any) -> None:
    """A cut, watched: the map has the hole, and the rest shares the weight; other heads are as they were."""
    model = build(both()).eval()
    source, target = torch.randint(60, (1, 9)), torch.randint(60, (1, 5))
    with torch.inference_mode():
        with watch(model) as plain:
            model(source, target)
        with cut(model, [3], [1, 2], [(0, 2)], kind=kind), watch(model) as seen:
            model(source, target)
    expected = without_edges(plain.map(0, 2, kind), [3], [1, 2]).dense()
    close = {"atol": 4e-6, "rtol": 0}  # scores of ±16: a float32 log-sum-exp of them counts by 2e-6
    torch.testing.assert_close(seen.map(0, 2, kind).dense(), expected, **close)
    torch.testing.assert_close(seen.map(0, 1, kind).dense(), plain.map(0, 1, kind).dense(), **CLOSE)


@pytest.mark.parametrize("inside", [True, False])
def test_watching_an_experiment_shows_what_ran(inside: bool) -> None:
    """In the first layer, where the stream is the same, it is the what-if of the plain map."""
    model = build(CONFIGS["softcap and sinks"]).eval()
    ids = torch.randint(60, (1, 12))
    with torch.inference_mode():
        with watch(model) as plain:
            model(ids)
        for block, what_if in [
            (lambda: cut(model, None, [2, 5]), lambda m: without_keys(m, [2, 5])),
            (lambda: rescore(model, AtTemperature(0.5)), lambda m: at_temperature(m, 0.5)),
        ]:
            contexts = [watch(model), block()]
            first, second = contexts if inside else contexts[::-1]
            with first as a, second as b:
                model(ids)
            seen = a if inside else b
            assert seen is not None
            for head in range(HEADS):
                expected = what_if(plain.map(0, head)).dense()
                torch.testing.assert_close(seen.map(0, head).dense(), expected, **CLOSE)


def test_what_cannot_be_watched_exactly_is_refused() -> None:
    model = build(CONFIGS["gpt2"]).eval()
    for block in (
        lambda: cut(model, [3], [1], [(0, 0)], renormalise=False),
        lambda: rescore(model, AtTemperature(2.0), [(0, 1)]),
    ):
        with block(), pytest.raises(NotWatchableError, match="leave that block before"), watch(model):
            pass
        with watch(model), pytest.raises(LensError, match="leave the `with watch"), block():
            pass
        assert kernels(model) == {fused}
    with rescore(model, AtTemperature(2.0), [(0, head) for head in range(HEADS)]), watch(model):
        pass  # all heads of the layer: one kernel call, one map


def test_a_cut_made_while_text_is_written_counts_from_its_start() -> None:
    model = build(CONFIGS["rotary"]).eval()
    ids = torch.randint(60, (1, 9))
    with torch.inference_mode(), cut(model, [6, 7], [2, 3]):
        whole = model(ids).logits
        cache = model.new_cache()
        parts = [model(ids[:, :5], cache=cache).logits]
        parts += [model(ids[:, at : at + 1], cache=cache).logits for at in range(5, 9)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=2e-6, rtol=0)


@pytest.mark.parametrize("renormalise", [True, False])
def test_a_cut_of_positions_that_are_not_there_is_refused(renormalise: bool, as_a_user: None) -> None:
    model = build(CONFIGS["rotary"]).eval()
    ids = torch.randint(60, (1, 9))
    wrongs: list[tuple[Any, Any, Any, str]] = [
        (None, [-1], OutsideError, "key -1 is outside"),
        ([-2], [0], OutsideError, "query -2 is outside"),
        (None, [], InputError, "no key was named"),
        ([], [0], InputError, "no query was named"),
        (None, 3, InputError, "no list of keys"),
        ([1.0], [0], InputError, "no list of queries"),
    ]
    for queries, keys, error, words in wrongs:
        with pytest.raises(error, match=words), cut(model, queries, keys, renormalise=renormalise):
            pytest.fail("the block was entered")
    for queries, keys, words in [(None, [2, 9], "key 9 is outside"), ([9], [2], r"query 9 .* choose 0…8")]:
        with cut(model, queries, keys, [(1, 0)], renormalise=renormalise):
            with torch.inference_mode(), pytest.raises(OutsideError, match=words):
                model(ids)
            model(torch.randint(60, (1, 10)))
    assert kernels(model) == {fused} and not model._forward_pre_hooks
    translator = build(both()).eval()
    with cut(translator, [4], [8], kind="cross", renormalise=renormalise):
        translator(torch.randint(60, (1, 9)), torch.randint(60, (1, 5)))
        with pytest.raises(OutsideError, match="key 8 is outside"):
            translator(torch.randint(60, (1, 8)), torch.randint(60, (1, 5)))


def test_a_cut_by_head_writes_no_larger_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask with a head axis goes by shorter blocks of queries: no tile above MASK_CELLS."""
    from clearhead.model import kernels as module

    sizes: list[int] = []
    real = Mask.additive

    def measured(self: Mask, rows: range, cols: range, **more: Any) -> Any:
        tile = real(self, rows, cols, **more)
        sizes.append(0 if tile is None else tile.numel())
        return tile

    monkeypatch.setattr(Mask, "additive", measured)
    monkeypatch.setattr(module, "MASK_CELLS", 4096)
    model = build(CONFIGS["gpt2"]).eval()
    with torch.inference_mode():
        with cut(model, None, [3], [(0, 1)]):
            found = model(torch.arange(60)[None]).logits
        assert sizes and max(sizes) <= 4096
        monkeypatch.setattr(module, "MASK_CELLS", 2**24)
        with cut(model, None, [3], [(0, 1)]):
            torch.testing.assert_close(found, model(torch.arange(60)[None]).logits, **CLOSE)


def test_every_attention_of_a_model_is_put_back() -> None:
    model = build(both()).eval()
    with (
        pytest.raises(ZeroDivisionError),
        cut(model, [0], [0], kind="cross"),
        rescore(model, AtTemperature(2.0), kind="encoder"),
    ):
        raise ZeroDivisionError
    assert {module.kernel for module in model.modules() if isinstance(module, Attention)} == {fused}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["gpt2", "softcap and sinks"])
def test_on_a_gpu_it_is_the_same(name: str) -> None:
    model = build(CONFIGS[name]).eval()
    ids = torch.randint(60, (1, 12))

    def every(device: str) -> list[Tensor]:
        own, here = model.to(device), ids.to(device)
        with torch.inference_mode():
            given = Outputs.of(own, lambda: own(here.flip(1)))
            means = Means.over(own, [lambda: own(here)])
            found = []
            for block in (
                cut(own, [4, 5], [1], [(0, 2)]),
                cut(own, None, [1], renormalise=False),
                rescore(own, AtTemperature(0.5), [(1, 1)]),
                rescore(own, WithoutMask(), [(1, 1)]),
                patch(own, [(1, 0)], given, at=[(2, 3)]),
                silence(own, [(0, 1)], how=means),
            ):
                with block:
                    found.append(own(here).logits.cpu())
            with watch(own, receipts=True) as seen:
                own(here)
            m = seen.map(0, 1)
            for what_if in (without_keys(m, [0]), without_edges(m, [5], [1, 2]), at_temperature(m, 2.0)):
                found += [what_if.dense().cpu(), output(what_if).cpu()]
        return found

    for ours, theirs in zip(every("cpu"), every("cuda"), strict=True):
        torch.testing.assert_close(theirs, ours, atol=2e-4, rtol=1e-3)
