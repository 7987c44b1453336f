"""Positions, held to transformers' arithmetic and to their own definitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clearhead.errors import ContextError
from clearhead.model.config import (
    ALiBi,
    DynamicScaling,
    Learned,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rotary,
    RotaryScaling,
    Sinusoidal,
    YarnScaling,
)
from clearhead.model.masks import Mask, RoundedSlopeBias, SlopeBias, distance_buckets
from clearhead.model.positions import LearnedPositions, Rotation, alibi_slopes, rotary_frequencies, sinusoids
from tests.model import tiny

D_HEAD, ORIGINAL = 16, 32
SHORT, LONG = tuple(1.0 + 0.1 * i for i in range(8)), tuple(1.5 * 1.4**i for i in range(8))

SCALINGS: dict[str, tuple[RotaryScaling | None, dict[str, Any]]] = {
    "default": (None, {"rope_type": "default"}),
    "linear": (LinearScaling(factor=4.0), {"rope_type": "linear", "factor": 4.0}),
    "dynamic": (
        DynamicScaling(factor=2.0, original_context=ORIGINAL),
        {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": ORIGINAL},
    ),
    "llama3": (
        Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=ORIGINAL),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": ORIGINAL,
        },
    ),
    "yarn": (
        YarnScaling(factor=4.0, original_context=ORIGINAL),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    ),
    "yarn, as DeepSeek": (
        YarnScaling(factor=40.0, original_context=ORIGINAL, beta_fast=16.0, mscale=0.7, mscale_all_dim=1.0),
        {
            "rope_type": "yarn",
            "factor": 40.0,
            "original_max_position_embeddings": ORIGINAL,
            "beta_fast": 16.0,
            "mscale": 0.7,
            "mscale_all_dim": 1.0,
        },
    ),
    "yarn, as gpt-oss": (
        YarnScaling(factor=32.0, original_context=ORIGINAL, attention_factor=1.25, truncate=False),
        {
            "rope_type": "yarn",
            "factor": 32.0,
            "original_max_position_embeddings": ORIGINAL,
            "attention_factor": 1.25,
            "truncate": False,
        },
    ),
    "longrope": (
        LongRopeScaling(short_factor=SHORT, long_factor=LONG, original_context=ORIGINAL, factor=4.0),
        {
            "rope_type": "longrope",
            "factor": 4.0,
            "short_factor": list(SHORT),
            "long_factor": list(LONG),
            "original_max_position_embeddings": ORIGINAL,
        },
    ),
}


# ── rotary ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("length", [7, ORIGINAL, ORIGINAL + 1, 90])
def test_rotary_turns_as_in_transformers(name: str, theta: float, length: int) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    scaling, parameters = SCALINGS[name]
    context = ORIGINAL if name == "dynamic" else 4 * ORIGINAL
    config = LlamaConfig(
        hidden_size=2 * D_HEAD,
        num_attention_heads=2,
        max_position_embeddings=context,
        rope_parameters={"rope_theta": theta, **parameters},
    )
    positions = torch.arange(length)[None]
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    rotation = Rotation.at(Rotary(theta=theta, scaling=scaling), D_HEAD, positions, length, torch.float32)
    torch.testing.assert_close(torch.cat((rotation.cos, rotation.cos), dim=-1), cos, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat((rotation.sin, rotation.sin), dim=-1), sin, rtol=0, atol=1e-5)
    q, k = torch.randn(1, 2, length, D_HEAD), torch.randn(1, 2, length, D_HEAD)
    for ours, theirs in zip((rotation.turn(q), rotation.turn(k)), apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", [name for name in SCALINGS if name != "default"])
@pytest.mark.parametrize("length", [10, 100])
def test_frequencies_are_transformers(name: str, length: int) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling, parameters = SCALINGS[name]
    config = LlamaConfig(
        hidden_size=2 * D_HEAD,
        num_attention_heads=2,
        max_position_embeddings=ORIGINAL if name == "dynamic" else 4 * ORIGINAL,
        rope_parameters={"rope_theta": 10_000.0, **parameters},
    )
    theirs, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"), seq_len=length)
    ours, growth = rotary_frequencies(Rotary(scaling=scaling), D_HEAD, length)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert growth == pytest.approx(factor)


def test_texts_of_one_batch_do_not_stretch_one_another() -> None:
    for choice in (tiny.DYNAMIC, tiny.LONGROPE):
        lengths = torch.tensor([[5], [40]])
        together, _ = rotary_frequencies(choice, 8, lengths)
        for row in range(2):
            alone, _ = rotary_frequencies(choice, 8, int(lengths[row]))
            assert torch.equal(together[row, 0], alone)


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    for choice in (Rotary(), Rotary(layout="interleaved"), Rotary(fraction=0.5)):

        def score(i: int, j: int, choice: Rotary = choice) -> float:
            at = [Rotation.at(choice, 16, torch.tensor([[p]]), 0, torch.float32) for p in (i, j)]
            return float((at[0].turn(q) * at[1].turn(k)).sum())

        assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
        assert score(9, 4) != pytest.approx(score(9, 3), abs=1e-3)


def test_both_layouts_are_one_rotation_up_to_the_order_of_widths() -> None:
    x, positions = torch.randn(2, 3, 5, 16), torch.arange(5).expand(2, 5)
    halves = Rotation.at(Rotary(layout="halves"), 16, positions, 5, torch.float32)
    interleaved = Rotation.at(Rotary(layout="interleaved"), 16, positions, 5, torch.float32)
    order = torch.arange(16).view(8, 2).T.flatten()  # 0, 2, 4 … 1, 3, 5 …
    torch.testing.assert_close(interleaved.turn(x)[..., order], halves.turn(x[..., order]), rtol=0, atol=0)


def test_interleaved_is_a_complex_product_and_a_part_of_the_head_stays() -> None:
    """The paper's own form: pairs as complex numbers, times e^(i·m·θ)."""
    x, positions = torch.randn(1, 2, 6, 16), torch.arange(6)[None]
    turned = Rotation.at(Rotary(layout="interleaved", fraction=0.5), 16, positions, 6, torch.float32).turn(x)
    angles = torch.arange(6)[:, None] * 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
    pairs = torch.view_as_complex(x[..., :8].unflatten(-1, (4, 2)).contiguous())
    expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
    torch.testing.assert_close(turned[..., :8], expected, rtol=0, atol=1e-6)
    assert torch.equal(turned[..., 8:], x[..., 8:])


# ── biases ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 20), (64, 1000)])
def test_t5_buckets_are_transformers(bidirectional: bool, buckets: int, furthest: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-1500, 1501)[None]
    theirs = T5Attention._relative_position_bucket(distance, bidirectional, buckets, furthest)
    ours = distance_buckets(distance, buckets=buckets, max_distance=furthest, bidirectional=bidirectional)
    assert torch.equal(ours, theirs)


@given(distance=st.integers(-10_000, 10_000), buckets=st.integers(4, 200), more=st.integers(1, 500), both=st.booleans())
def test_every_distance_has_a_bucket(distance: int, buckets: int, more: int, both: bool) -> None:
    furthest = buckets // 2 + more
    bucket = distance_buckets(torch.tensor([distance]), buckets=buckets, max_distance=furthest, bidirectional=both)
    assert 0 <= int(bucket) < buckets


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 16, 25, 71, 112])
def test_alibi_is_blooms_and_mpts(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    length = 9
    ours = SlopeBias(alibi_slopes(heads)).add(torch.tensor([length - 1]), torch.arange(length))[0, :, 0]  # last query
    bloom = build_alibi_tensor(torch.ones(1, length), heads, torch.float32)[:, 0]
    torch.testing.assert_close(ours - ours[:, :1], bloom, rtol=1e-6, atol=1e-6)  # a softmax does not see the shift
    mpt = build_mpt_alibi_tensor(heads, length)[:, 0]
    torch.testing.assert_close(ours, mpt, rtol=1e-6, atol=1e-6)


def test_alibi_slopes_of_eight_heads_are_the_papers() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-k for k in range(1, 9)]


@pytest.mark.parametrize("heads", [1, 3, 8, 16, 71, 128])
def test_alibi_in_bfloat16_is_falcons(heads: int) -> None:
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    real = torch.ones(2, 600, dtype=torch.long)
    real[1, :100] = 0
    theirs = build_alibi_tensor(real, heads, torch.float32).view(2, heads, 600) * 0.5
    bias = RoundedSlopeBias(alibi_slopes(heads), real.cumsum(1) - 1, 0.5)
    ours = bias.add(torch.tensor([599]), torch.arange(600))[:, :, 0]
    for row, begin in ((0, 0), (1, 100)):  # a softmax does not see the shift
        torch.testing.assert_close(ours[row, :, begin:], (theirs[row] - theirs[row, :, -1:])[:, begin:], rtol=0, atol=0)
    assert torch.equal(bias.of(1, heads - 1).add(torch.tensor([599]), torch.arange(600))[0, 0, 0], ours[1, -1])
    kept = bias.kept()
    bias.places.zero_()
    assert torch.equal(kept.add(torch.tensor([599]), torch.arange(600))[:, :, 0], ours)


def test_alibi_divided_with_the_scores() -> None:
    masks: list[Mask] = []
    for choice in (ALiBi(), ALiBi(scaled=True)):
        model = tiny.decoder(choice, n_layers=1)
        model.decoder.block(0).attention.kernel = lambda q, k, v, scoring, dropout=0.0: masks.append(scoring.mask) or q  # type: ignore[func-returns-value]
        model(tiny.ids(1, 5))
    plain, scaled = (mask.bias(torch.arange(5), torch.arange(5)) for mask in masks)
    assert plain is not None
    torch.testing.assert_close(scaled, plain * 8**-0.5)


# ── added to the embedding ───────────────────────────────────────────────────────────────────────────────────────


def test_sinusoids_are_the_papers() -> None:
    table = sinusoids(torch.arange(30)[None], 12, Sinusoidal())[0]
    for pos in range(30):
        for i in range(6):
            angle = pos / 10_000 ** (2 * i / 12)
            assert float(table[pos, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[pos, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_sinusoids_in_halves_are_marians() -> None:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    theirs = MarianSinusoidalPositionalEmbedding(40, 16).create_weight()
    ours = sinusoids(torch.arange(40)[None], 16, Sinusoidal(layout="halves"))[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_sinusoids_with_an_endpoint_are_m2m_100s_to_the_bit() -> None:
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding

    theirs = M2M100SinusoidalPositionalEmbedding.get_embedding(1026, 16, None)
    ours = sinusoids(torch.arange(1024)[None], 16, Sinusoidal(layout="halves", offset=2, endpoint=True))[0]
    assert torch.equal(ours, theirs[2:])
    slowest = ours[1, 15]
    assert float(slowest) == pytest.approx(math.cos(3 / 10_000), abs=1e-7), "a radian in 10,000 positions"


def test_sinusoids_start_at_their_offset() -> None:
    later: Tensor = sinusoids(torch.arange(5)[None], 8, Sinusoidal(offset=2))
    assert torch.equal(later, sinusoids(torch.arange(2, 7)[None], 8, Sinusoidal()))


def test_learned_rows_start_at_their_offset_and_padding_has_the_row_before() -> None:
    positions = LearnedPositions(Learned(offset=2), 5, 3)
    torch.nn.init.normal_(positions.weight)
    assert positions.weight.shape == (7, 3)
    assert torch.equal(positions(torch.tensor([[-1, 0, 4]]))[0], positions.weight[[1, 2, 6]])


@pytest.mark.parametrize("name", ["learned", "learned from row 2"])
def test_a_text_past_the_learned_positions_is_refused_in_one_line(name: str) -> None:
    model = tiny.decoder(tiny.POSITIONS[name])
    model(tiny.ids(1, tiny.CONTEXT))
    with pytest.raises(ContextError, match="the text is 97 tokens long and the model's positions end at 96; shorten"):
        model(tiny.ids(1, tiny.CONTEXT + 1))
