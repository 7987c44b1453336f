"""Calls of any attention there is, drawn by hypothesis, run by the kernels, and written out by the equation."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from clearhead.lens.kept.call import Call
from clearhead.lens.kept.keep import EVERYTHING, Choice
from clearhead.model.kernels import Scoring, attention_weights, fused_with_lse, kernel_name
from clearhead.model.masks import (
    BucketBias,
    Causal,
    Documents,
    KeyPadding,
    Mask,
    Prefix,
    RoundedSlopeBias,
    SlopeBias,
    Table,
    TableBias,
    Window,
    additive_table,
)

BATCH, WIDTH = 2, 8

MASKS = ["causal", "window", "left", "right", "documents", "prefix", "table", "additive"]
BIASES = ["buckets", "both_ways", "slopes", "rounded_slopes", "table_bias"]

PLANS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "queries": st.integers(1, 40),
        "keys": st.integers(1, 40),
        "offset": st.sampled_from([0, 0, 1, 5, 17]),
        "cross": st.booleans(),
        "heads": st.sampled_from([(4, 4), (4, 2), (3, 1), (1, 1)]),
        "masks": st.sets(st.sampled_from(MASKS), max_size=3),
        "biases": st.sets(st.sampled_from(BIASES), max_size=2),
        "softcap": st.sampled_from([None, None, 5.0]),
        "sinks": st.booleans(),
        "scale": st.sampled_from([WIDTH**-0.5, 1.0, 0.05]),
        "values": st.sampled_from([WIDTH, WIDTH, 3]),
    }
)
"""A call of an attention of any kind: what it has, and the seed of its numbers. Cross: queries are no positions."""


def mask_of(plan: dict[str, Any], queries: int, keys: int, device: str) -> Mask:
    """The mask that a plan describes, for queries that are the last of the keys unless it is a cross-attention."""
    generator = torch.Generator().manual_seed(plan["seed"] + 1)
    names, cross, heads = plan["masks"] | plan["biases"], plan["cross"], plan["heads"][0]
    whole = plan["offset"] + queries

    def numbers(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rules: list[Any] = []
    biases: list[Any] = []
    for side in ("left", "right"):
        if side in names:
            cut = (numbers(BATCH, 1) * keys).long()
            places = torch.arange(keys)[None]
            rules.append(KeyPadding(((places >= cut) if side == "left" else (places <= cut)).to(device)))
    if "table" in names:
        rules.append(Table((numbers(1, heads, whole, keys) > 0.2).to(device)))
    if "additive" in names:
        table = torch.where(numbers(BATCH, 1, whole, keys) > 0.3, 0.0, torch.finfo(torch.float32).min)
        more, added = additive_table((table + normal(BATCH, 1, whole, keys)).to(device))
        rules += more
        biases += added
    if "table_bias" in names:
        biases.append(TableBias(normal(BATCH, 1, whole, keys).to(device)))
    if not cross:
        if "causal" in names:
            rules.append(Causal())
        if "window" in names:
            rules.append(Window(1 + int(numbers(1) * 8)))
        if "documents" in names:
            documents = (numbers(BATCH, keys) * 3).long().sort().values.to(device)
            rules.append(Documents(documents, documents))
        if "prefix" in names:
            rules.append(Prefix((numbers(BATCH) * keys).long().to(device)))
        if "slopes" in names:
            biases.append(SlopeBias(normal(heads).abs().to(device)))
        if "rounded_slopes" in names:
            places = torch.arange(keys).expand(BATCH, -1).to(device)
            biases.append(RoundedSlopeBias(normal(heads).abs().to(device), places))
        if {"buckets", "both_ways"} & names:
            biases.append(BucketBias(normal(8, heads).to(device), "both_ways" in names, 16))
    return Mask(tuple(rules), tuple(biases), plan["offset"])


def carry_out(
    plan: dict[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    choice: Choice = EVERYTHING,
) -> tuple[Call, Tensor, Tensor]:
    """The call that a plan describes, as a kernel runs it; its weights by the equation in float64, and in float32."""
    generator = torch.Generator().manual_seed(plan["seed"])
    heads, kv_heads = plan["heads"]
    queries = plan["queries"]
    keys = plan["keys"] if plan["cross"] else queries + plan["offset"]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    # Scores of ±5, as trained models mostly have them: at ±50, float32 itself knows a weight to 1e-5 only.
    shrink = WIDTH**-0.5 / plan["scale"] if plan["scale"] > 0.5 else 1.0
    q = (normal(BATCH, heads, queries, WIDTH) * shrink).to(device, dtype)
    k = normal(BATCH, kv_heads, keys, WIDTH).to(device, dtype)
    v = normal(BATCH, kv_heads, keys, plan["values"]).to(device, dtype)
    sinks = normal(heads).to(device, dtype) if plan["sinks"] else None
    scoring = Scoring(plan["scale"], mask_of(plan, queries, keys, device), plan["softcap"], sinks)
    out, lse = fused_with_lse(q, k, v, scoring)
    name = kernel_name(q, k, v, scoring)
    where = {"kind": "decoder", "layer": 0, "module": "drawn"}
    call = Call(q, k, lse, scoring, **where, choice=choice, v=v, out=out, kernel=name)
    if dtype.itemsize == 2 and name.startswith("fused") and scoring.mask.biases:  # it has the bias in half precision
        rows, cols = (torch.arange(n, device=device) for n in (queries, keys))
        bias = scoring.mask.bias(rows, cols)
        table = TableBias(torch.nn.functional.pad(bias.to(dtype), (0, 0, plan["offset"], 0)))
        scoring = Scoring(scoring.scale, Mask(scoring.mask.rules, (table,), plan["offset"]))
    rest = {"softcap": plan["softcap"], "sinks": sinks}
    wide, single = (
        attention_weights(q.to(kind), k.to(kind), scoring.mask, plan["scale"], **rest)
        for kind in (torch.float64, torch.float32)
    )
    return call, wide, single
