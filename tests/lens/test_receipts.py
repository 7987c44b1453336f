"""Receipts: what ran is verified, what was doctored is not, and no more is promised than the precision gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from clearhead.errors import InputError, LensError, OutsideError
from clearhead.lens.kept.keep import Choice, Half
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.seen import Seen
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.transformer import build
from tests.lens.calls import PLANS, carry_out

QUICK = settings(max_examples=40, derandomize=True, phases=(Phase.explicit, Phase.generate))
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def watched(**choice: Any) -> Seen:
    model = build(presets.gpt2(n_layers=2, n_heads=4, d_model=32, vocab_size=60, context=64)).eval()
    with torch.inference_mode(), watch(model, **choice) as seen:
        model(torch.randint(60, (2, 30)))
    return seen


@given(plan=PLANS, dtype=st.sampled_from(DTYPES), half=st.booleans())
@QUICK
def test_what_ran_is_verified(plan: dict[str, Any], dtype: torch.dtype, half: bool) -> None:
    """Every mask, bias, softcap, sink, empty row and precision: weights and A·V agree within what is stated."""
    choice = Choice(receipts=True, keep=Half()) if half else Choice(receipts=True)
    call, _, _ = carry_out(plan, dtype=dtype, choice=choice)
    for head in call.heads:
        receipt = call.map(head, 1).verify()
        assert receipt.ok and receipt.output is not None, str(receipt)
        assert receipt.n_rows == min(16, call.shape[0]) and "\n" not in str(receipt)


@given(plan=PLANS, what=st.sampled_from(["lse", "keys", "output", "values", "nan"]))
@QUICK
def test_what_was_doctored_is_not(plan: dict[str, Any], what: str) -> None:
    plan = {**plan, "masks": plan["masks"] & {"causal", "window"}, "queries": max(2, plan["queries"])}
    call, _, _ = carry_out(plan, choice=Choice(receipts=True))
    m = call.map(0)
    assert m.shown is not None and m.verify().ok
    q, k, lse, (v, out) = m.q, m.k, m.lse, m.shown
    if what == "lse":
        lse = lse + 1e-3
    elif what == "keys":
        k = k + 0.1 * torch.randn_like(k)
    elif what == "output":
        out = out.roll(1, 0) + 0.1
    elif what == "values":
        v = v * 1.01 + 0.01
    else:
        out = out * torch.nan
    doctored = AttentionMap(q, k, lse, m.scoring, v=v[None, None], out=out[None, None], name="doctored")
    if what == "keys" and k.shape[2] == 1:
        return  # one key is read wholly, whatever it is
    receipt = doctored.verify()
    assert not receipt.ok and "NOT what ran" in str(receipt)


def test_all_heads_the_worst_first() -> None:
    seen = watched(receipts=True)
    found = seen.verify(rows=[0, -1, 7])
    assert found.ok and len(found) == 8 and "8 heads verified; the worst: " in str(found)
    assert [receipt.strain for receipt in found] == sorted((receipt.strain for receipt in found), reverse=True)
    assert found.worst is found.heads[0] and found.worst.n_rows == 3
    with torch.inference_mode():
        seen.call(1).tensors[2][0, 2] += 0.5  # another log-sum-exp under one head
    doctored = seen.verify()
    assert not doctored.ok and doctored.worst.name == "decoder layer 1 head 2"
    assert str(doctored).startswith("1 of 8 heads are NOT what ran; the worst: decoder layer 1 head 2: NOT what ran")
    with pytest.raises(LensError, match="nothing was seen"):
        Seen().verify()


def test_without_receipts_it_says_so() -> None:
    receipt = watched().map(0, 0).verify()
    assert receipt.ok and receipt.output is None
    assert "the kernel's output was not kept (watch with receipts=True" in str(receipt)


def test_what_receipts_keep() -> None:
    plain, more = watched(), watched(receipts=True)
    each = 2 * 4 * 30 * 8 * 4  # v, or the output, of one layer
    assert more.nbytes - plain.nbytes == 2 * 2 * each


def test_training_with_dropout_keeps_no_output() -> None:
    model = build(presets.gpt2(n_layers=1, n_heads=2, d_model=16, vocab_size=60, context=64, dropout=0.5)).train()
    with watch(model, receipts=True) as seen:
        model(torch.randint(60, (1, 9)))
    assert seen.verify().ok and seen.verify().worst.output is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_more_than_the_precision_gives_is_refused(dtype: torch.dtype) -> None:
    plan = {"seed": 3, "queries": 9, "keys": 9, "offset": 0, "cross": False, "heads": (1, 1), "masks": {"causal"}}
    plan |= {"biases": set(), "softcap": None, "sinks": False, "scale": 0.3, "values": 8}
    m = carry_out(plan, dtype=dtype)[0].map(0)
    with pytest.raises(InputError, match="which gives weights to about") as caught:
        m.verify(atol=1e-9)
    assert "\n" not in str(caught.value) and str(dtype).removeprefix("torch.") in str(caught.value)
    assert m.verify(atol=1e-3).ok and m.verify(atol=1e-3).tolerance == 1e-3
    with pytest.raises(OutsideError, match="query 9 is outside"):
        m.verify(rows=[9])
    with pytest.raises(InputError, match="no rows"):
        m.verify(rows=[])
