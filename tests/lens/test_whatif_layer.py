"""What-ifs of one head equal the equation under the other rule, for every kind of attention; nothing is run again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearhead.errors import InputError, LensError, OutsideError, ReleasedError
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.seen import Call
from clearhead.lens.watch import watch
from clearhead.lens.whatif import cut, layer
from clearhead.lens.whatif.layer import (
    at_temperature,
    output,
    rescored,
    without_edges,
    without_keys,
    without_mask,
    without_scale,
    without_sinks,
)
from clearhead.lens.whatif.rescoring import RULES, WithoutKeys
from clearhead.model.kernels import Scoring, attention_weights
from clearhead.model.masks import Causal, KeyPadding, Mask, Prefix, Table, TableBias, Window
from clearhead.model.transformer import build
from tests.lens.test_attention_map import BATCH, HEADS, PLANS, carry_out
from tests.lens.test_watch import CONFIGS

CLOSE = {"atol": 1e-6, "rtol": 0}
QUICK = settings(max_examples=16)


def written(m: AttentionMap) -> tuple[Tensor, Tensor, float]:
    """The map's scores before the mask, in float64, the mask written out, and its sink."""
    rows, cols = (torch.arange(size) for size in m.shape)
    allowed = m.scoring.mask.allowed(rows, cols)
    open_ = replace(m.scoring, mask=Mask((), m.scoring.mask.biases, m.scoring.mask.offset))
    scores = open_.scores(m.q.double(), m.k.double(), rows, cols)[0, 0]
    may = torch.ones_like(scores, dtype=torch.bool) if allowed is None else allowed[0, 0].expand_as(scores)
    return scores, may, float(m.scoring.sinks) if m.scoring.sinks is not None else -torch.inf


def softmax(scores: Tensor, may: Tensor, sink: float) -> Tensor:
    scores = torch.cat((scores.masked_fill(~may, -torch.inf), torch.full_like(scores[:, :1], sink)), dim=1)
    return scores.softmax(-1).nan_to_num(0.0)[:, :-1].float()


@QUICK
@given(PLANS, st.data(), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_deleted_key_is_the_equation_without_it(plan: dict[str, Any], data: Any, switch: float) -> None:
    """Whichever rows are summed anew: all of them, none, or those that lose most."""
    call, _ = carry_out(plan)
    m = call.map(data.draw(st.integers(0, HEADS - 1)), data.draw(st.integers(0, BATCH - 1)))
    keys = data.draw(st.lists(st.integers(-m.shape[1], m.shape[1] - 1), min_size=1, max_size=m.shape[1]))
    scores, may, sink = written(m)
    may = may.clone()
    may[:, keys] = False
    expected = softmax(scores, may, sink)
    before, layer.SWITCH = layer.SWITCH, switch
    try:
        found = without_keys(m, keys).dense()
    finally:
        layer.SWITCH = before
    if switch < 1.0:
        torch.testing.assert_close(found, expected, **CLOSE)
    else:  # the subtraction alone: good while a tenth of the weight is left
        left = m.dense()[:, keys_of(m, keys)].sum(-1) < 0.9
        torch.testing.assert_close(found[left], expected[left], atol=1e-5, rtol=0)
    assert float(found[:, keys].abs().max()) == 0.0
    torch.testing.assert_close(rescored(m, WithoutKeys(keys_of(m, keys))).dense(), expected, **CLOSE)


def keys_of(m: AttentionMap, keys: list[int]) -> list[int]:
    return sorted({key % m.shape[1] for key in keys})


@QUICK
@given(PLANS, st.data())
def test_cut_edges_are_the_equation_without_them(plan: dict[str, Any], data: Any) -> None:
    call, _ = carry_out(plan)
    m = call.map(data.draw(st.integers(0, HEADS - 1)), 1)
    rows, cols = (data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=4)) for size in m.shape)
    scores, may, sink = written(m)
    may = may.clone()
    may[torch.tensor(rows)[:, None], torch.tensor(cols)] = False
    torch.testing.assert_close(without_edges(m, rows, cols).dense(), softmax(scores, may, sink), **CLOSE)


@QUICK
@given(PLANS, st.integers(0, HEADS - 1), st.floats(0.6, 4.0))
def test_temperature_scale_and_sinks_are_the_equation(plan: dict[str, Any], head: int, t: float) -> None:
    call, _ = carry_out({**plan, "softcap": plan["softcap"] and 2.0})
    m = call.map(head, 0)
    scores, may, sink = written(m)
    torch.testing.assert_close(at_temperature(m, t).dense(), softmax(scores / t, may, sink / t), **CLOSE)
    if m.scoring.sinks is not None:
        torch.testing.assert_close(without_sinks(m).dense(), softmax(scores, may, -torch.inf), **CLOSE)
    else:
        with pytest.raises(InputError, match="no learned sink"):
            without_sinks(m)
    if m.scoring.scale == 1.0:
        with pytest.raises(InputError, match="scale is 1 already"):
            without_scale(m)
    else:
        plain = replace(m.scoring, scale=1.0)
        found = AttentionMap(m.q, m.k, m.lse, plain, name="")
        torch.testing.assert_close(without_scale(m).dense(), softmax(*written(found)), atol=3e-6, rtol=0)


@QUICK
@given(PLANS, st.integers(0, BATCH - 1), st.lists(st.sampled_from(list(RULES)), min_size=1, unique=True))
def test_dropped_rules_are_the_equation_without_them(plan: dict[str, Any], batch: int, names: list[str]) -> None:
    call, _ = carry_out({**plan, "causal": True, "cross": False})
    m = call.map(0, batch)
    kinds = tuple(RULES[name] for name in names)
    if not any(isinstance(rule, kinds) for rule in m.scoring.mask.rules):
        with pytest.raises(InputError, match="here to drop; this attention's rules: "):
            without_mask(m, names)
        return
    rules = tuple(rule for rule in m.scoring.mask.rules if not isinstance(rule, kinds))
    mask = Mask(rules, m.scoring.mask.biases)
    scores, _, sink = written(m)
    allowed = mask.allowed(*(torch.arange(size) for size in m.shape))
    may = torch.ones_like(scores, dtype=torch.bool) if allowed is None else allowed[0, 0].expand_as(scores)
    torch.testing.assert_close(without_mask(m, names).dense(), softmax(scores, may, sink), **CLOSE)


def one_head(queries: int, keys: int, *rules: Any, sinks: Tensor | None = None, **more: Any) -> AttentionMap:
    q, k, v = torch.randn(1, 1, queries, 8), torch.randn(1, 1, keys, 8), torch.randn(1, 1, keys, 4)
    mask = Mask(tuple(rules), **more)
    scoring = Scoring(8**-0.5, mask, None, sinks)
    from clearhead.model.kernels import fused_with_lse

    _, lse = fused_with_lse(q, k, v, scoring)
    return Call(q, k, lse, scoring, kind="decoder", layer=0, module="test").map(0)


def test_a_row_that_loses_nearly_all_keeps_its_digits() -> None:
    """One key takes 1 − 1e-7 of every row: what is left is worked out from the scores, not from the difference."""
    q, k = torch.zeros(1, 1, 4, 8), torch.randn(1, 1, 5, 8) * 0.1
    q[..., 0], k[0, 0, 2, 0] = 8.0, 8.0  # 16·… above the others
    scoring = Scoring(8**-0.5)
    lse = (q @ k.transpose(-1, -2) * scoring.scale).logsumexp(-1)
    m = Call(q, k, lse, scoring, kind="encoder", layer=0, module="test").map(0)
    assert float(m.column(2).min()) > 1 - 1e-6
    scores, may, sink = written(m)
    may = may.clone()
    may[:, 2] = False
    torch.testing.assert_close(without_keys(m, [2]).dense(), softmax(scores, may, sink), **CLOSE)


def test_a_row_with_nothing_left_is_all_zeros() -> None:
    m = one_head(5, 5, Causal())
    found = without_keys(m, [0])
    assert float(found[0].abs().max()) == 0.0 and float(found.row_sums()[1:].min()) > 0.999
    assert float(without_keys(m, range(5)).dense().abs().max()) == 0.0  # type: ignore[arg-type]


def test_several_what_ifs_stand_on_one_another() -> None:
    m = one_head(40, 40, Causal(), KeyPadding((torch.arange(40) != 7)[None]), sinks=torch.tensor([0.3]))
    a = at_temperature(without_keys(without_sinks(m), [3, 5]), 2.0)
    b = without_sinks(without_keys(at_temperature(m, 2.0), [5, 3]))
    torch.testing.assert_close(a.dense(), b.dense(), **CLOSE)
    assert a.name == "decoder layer 0 head 0, without sinks, without keys 3, 5, at temperature 2"
    assert a.shape == m.shape and a.top(9, 2)[0].weight == pytest.approx(float(a[9].max()))


def test_only_the_rows_that_are_looked_at_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    m = one_head(1000, 1000, Causal(), Window(300))
    summed: list[int] = []
    real = layer.log_sum_exp

    def counting(q: Any, k: Any, scoring: Any, rows: Any) -> Any:
        summed.append(len(rows))
        return real(q, k, scoring, rows)

    monkeypatch.setattr(layer, "log_sum_exp", counting)
    found = at_temperature(m, 0.5)
    assert not summed
    row = found[700]
    assert summed == [layer.BLOCK]
    torch.testing.assert_close(row, found.dense()[700])
    assert sum(summed) == 1000
    found.pool(8, 8)
    assert sum(summed) == 1000


def test_a_cached_step_s_edges_are_counted_from_the_text_s_start() -> None:
    m = one_head(2, 9, Causal(), offset=7)
    found = without_edges(m, [1], [4])
    assert float(found[1, 4]) == 0.0 and float(found[0, 4]) == float(m[0, 4])


def test_with_values_kept_the_head_s_new_output() -> None:
    model = build(CONFIGS["rotary"]).eval()
    ids = torch.randint(60, (1, 30))
    with torch.inference_mode(), watch(model, receipts=True) as seen:
        model(ids)
    m = seen.map(1, 2)
    found = without_keys(m, [0, 4])
    values = seen.call(1)._shown[0][0, 1]  # type: ignore[index]
    torch.testing.assert_close(output(found), found.dense() @ values, **CLOSE)
    torch.testing.assert_close(output(m), m.dense() @ values, **CLOSE)
    with pytest.raises(LensError, match="receipts=True"):
        output(one_head(3, 3))


def test_a_map_that_grows_is_asked_as_it_is_at_one_moment() -> None:
    """The text goes on between the question and the answer's first look; rows still sum to what they should."""
    model = build(CONFIGS["softcap and sinks"]).eval()
    ids = torch.randint(60, (1, 9))
    asked: list[Any] = [
        lambda m: without_keys(m, [0]),
        lambda m: without_edges(m, [3], [1]),
        without_sinks,
        lambda m: at_temperature(m, 0.5),
        without_scale,
        without_mask,
        lambda m: rescored(m, WithoutKeys((1,))),
    ]
    with torch.inference_mode(), watch(model, receipts=True) as seen:
        cache = model.new_cache()
        model(ids[:, :5], cache=cache)
        growing = seen.growing(0, 0)
        then = growing.now
        answers = [ask(growing) for ask in asked]
        said = output(growing)
        for at in range(5, 9):
            model(ids[:, at : at + 1], cache=cache)
        assert growing.shape == (9, 9) and said.shape[0] == 5
        for ask, answer in zip(asked, answers, strict=True):
            assert answer.shape == (5, 5)
            torch.testing.assert_close(answer.dense(), ask(then).dense(), atol=0, rtol=0)
        torch.testing.assert_close(said, output(then), atol=0, rtol=0)
        assert without_sinks(growing).shape == (9, 9)
        sums = without_sinks(growing).dense().sum(-1)
    torch.testing.assert_close(sums, torch.ones(9), **CLOSE)


def test_refusals_are_one_line(as_a_user: None) -> None:
    m = one_head(4, 6, Table(torch.ones(1, 1, 4, 6, dtype=torch.bool)))
    for wrong, error, words in [
        (lambda: without_keys(m, [6]), OutsideError, "key 6 is outside"),
        (lambda: without_keys(m, []), InputError, "no key was named"),
        (lambda: without_keys(m, 3), InputError, "no list of keys"),
        (lambda: without_edges(m, [4], [0]), OutsideError, "query 4 is outside"),
        (lambda: at_temperature(m, 0.0), InputError, "above 0"),
        (lambda: at_temperature(m, float("nan")), InputError, "above 0"),
        (lambda: at_temperature(m, "hot"), InputError, "above 0"),
        (lambda: without_mask(m), InputError, "written out"),
        (lambda: without_mask(m, "causal"), InputError, "no rule's name"),
        (lambda: without_mask(m, ["order"]), InputError, "no rule's name"),
        (lambda: without_mask(one_head(3, 3)), InputError, "reads everything"),
    ]:
        with pytest.raises(error, match=words):
            wrong()


def test_a_released_map_s_what_if_is_released() -> None:
    q = torch.randn(1, 1, 4, 8)
    call = Call(q, q, torch.zeros(1, 1, 4), Scoring(1.0), kind="encoder", layer=0, module="test")
    found = without_keys(call.map(0), [1])
    call.release()
    with pytest.raises(ReleasedError):
        found.dense()
    with pytest.raises(ReleasedError):
        without_keys(call.map(0), [1])


def test_a_prefix_is_an_order_and_a_bias_stays() -> None:
    bias = TableBias(torch.randn(1, 1, 6, 6))
    m = one_head(6, 6, Prefix(torch.tensor([2])), biases=(bias,))
    expected = attention_weights(m.q, m.k, Mask((), (bias,)), m.scoring.scale)
    torch.testing.assert_close(without_mask(m).dense(), expected[0, 0], **CLOSE)


def test_a_transformers_model_s_maps_are_asked_on_the_layer_alone() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config).eval()
    real = torch.ones(1, 9, dtype=torch.long)
    real[0, :2] = 0
    with torch.inference_mode(), watch(model) as seen:
        model(torch.randint(50, (1, 9)), attention_mask=real)
    m = seen.map(0, 1)
    scores, may, sink = written(m)
    torch.testing.assert_close(at_temperature(m, 0.5).dense(), softmax(scores / 0.5, may, sink), **CLOSE)
    torch.testing.assert_close(without_mask(m).dense(), softmax(scores, real.bool().expand(9, 9), sink), **CLOSE)
    with pytest.raises(LensError, match="GPT2LMHeadModel is a model of transformers: its heads"), cut(model, None, [1]):
        pass
