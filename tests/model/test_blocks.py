"""The block and what is built of it: each arrangement is the formula that its config names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.model import build
from clearhead.model.block import Block
from clearhead.model.config import (
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModel,
    LayerNorm,
    ModelConfig,
    NoPosition,
    Parallel,
    QKNorm,
    RMSNorm,
    Rotary,
    SequenceClassification,
    StackConfig,
    T5Bias,
)
from clearhead.model.feedforward import FeedForward
from clearhead.model.masks import Causal, Mask
from clearhead.model.norms import Norm
from tests.model import tiny

MASK = Mask((Causal(),))
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def block(**choices: object) -> Block:
    return tiny.lively(Block(tiny.stack(NoPosition(), **choices), 0, tiny.WIDTH))


def parts(b: Block):  # type: ignore[no-untyped-def]
    return lambda x: b.attention(x, mask=MASK), b.feedforward, b.attention_norm, b.feedforward_norm


# ── where the residual is normed ─────────────────────────────────────────────────────────────────────────────────


def test_before() -> None:
    b, x = block(norm_place="before"), torch.randn(2, 5, tiny.WIDTH)
    read, think, n1, n2 = parts(b)
    y = x + read(n1.before(x))
    torch.testing.assert_close(b(x, mask=MASK), y + think(n2.before(y)))


def test_after() -> None:
    b, x = block(norm_place="after"), torch.randn(2, 5, tiny.WIDTH)
    read, think, n1, n2 = parts(b)
    y = n1.after(x + read(x))
    torch.testing.assert_close(b(x, mask=MASK), n2.after(y + think(y)))


def test_both() -> None:
    b, x = block(norm_place="both", norm=RMSNorm(plus_one=True)), torch.randn(2, 5, tiny.WIDTH)
    read, think, n1, n2 = parts(b)
    y = x + n1.after(read(n1.before(x)))
    torch.testing.assert_close(b(x, mask=MASK), y + n2.after(think(n2.before(y))))


def test_output() -> None:
    b, x = block(norm_place="output"), torch.randn(2, 5, tiny.WIDTH)
    read, think, n1, n2 = parts(b)
    y = x + n1.after(read(x))
    torch.testing.assert_close(b(x, mask=MASK), y + n2.after(think(y)))


def test_input() -> None:
    b, x = block(norm_place="input"), torch.randn(2, 5, tiny.WIDTH)
    read, think, n1, n2 = parts(b)
    y = n1.before(x)
    z = n2.before(y + read(y))
    torch.testing.assert_close(b(x, mask=MASK), z + think(z))


def test_parallel() -> None:
    b, x = block(residual=Parallel()), torch.randn(2, 5, tiny.WIDTH)
    read, think, n1, n2 = parts(b)
    torch.testing.assert_close(b(x, mask=MASK), x + read(n1.before(x)) + think(n2.before(x)))


def test_parallel_with_one_norm() -> None:
    b, x = block(residual=Parallel(shared_norm=True)), torch.randn(2, 5, tiny.WIDTH)
    read, think, n1, n2 = parts(b)
    assert n2 is None
    torch.testing.assert_close(b(x, mask=MASK), x + read(n1.before(x)) + think(n1.before(x)))


def test_cross_attention_comes_between() -> None:
    b, x, memory = block(cross_attention=tiny.ATTENTION), torch.randn(2, 5, tiny.WIDTH), torch.randn(2, 3, tiny.WIDTH)
    read, think, n1, n2 = parts(b)
    y = x + read(n1.before(x))
    y = y + b.cross_attention(b.cross_norm.before(y), memory=memory, mask=Mask())  # type: ignore[misc, union-attr]
    y = y + think(n2.before(y))
    torch.testing.assert_close(b(x, mask=MASK, memory=memory, memory_mask=Mask()), y)


def test_a_whole_layer_is_torchs_own() -> None:
    """Vaswani's: nn.TransformerEncoderLayer and DecoderLayer, post- and pre-norm, with their weights copied."""
    x, memory = torch.randn(2, 5, tiny.WIDTH), torch.randn(2, 3, tiny.WIDTH)
    later = torch.ones(5, 5).triu(1).bool()
    for place, first in (("after", False), ("before", True)):
        theirs = nn.TransformerDecoderLayer(
            tiny.WIDTH, 4, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=first
        )
        ours = block(norm_place=place, cross_attention=tiny.ATTENTION)
        names = {
            "attention.o_proj": "self_attn.out_proj",
            "cross_attention.o_proj": "multihead_attn.out_proj",
            "feedforward.up": "linear1",
            "feedforward.down": "linear2",
            f"attention_norm.{place}": "norm1",
            f"cross_norm.{place}": "norm2",
            f"feedforward_norm.{place}": "norm3",
        }
        weights = theirs.state_dict()
        copied = {f"{us}.{w}": weights[f"{they}.{w}"] for us, they in names.items() for w in ("weight", "bias")}
        for us, they in (("attention", "self_attn"), ("cross_attention", "multihead_attn")):
            for w in ("weight", "bias"):
                split = weights[f"{they}.in_proj_{w}"].chunk(3)
                copied |= {f"{us}.{p}_proj.{w}": part for p, part in zip("qkv", split, strict=True)}
        ours.load_state_dict(copied)
        out = ours(x, mask=MASK, memory=memory, memory_mask=Mask())
        torch.testing.assert_close(out, theirs(x, memory, tgt_mask=later), rtol=0, atol=2e-6)


# ── norms and feed-forward ───────────────────────────────────────────────────────────────────────────────────────


def test_norms_are_their_formulas() -> None:
    x = torch.randn(3, 8) * 5 + 1
    layer, rms, one = (tiny.lively(Norm(n, 8)) for n in (LayerNorm(), RMSNorm(eps=1e-3), RMSNorm(plus_one=True)))
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(rms(x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * rms.weight)
    torch.testing.assert_close(one(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + one.weight))
    assert Norm(LayerNorm(bias=False), 8).bias is None
    assert not Norm(RMSNorm(plus_one=True), 8).weight.any(), "1 + w begins at 1"


def test_norms_without_weights_and_with_each_heads_own() -> None:
    x = torch.randn(3, 5, 2, 8)
    bare, own, rms = (
        tiny.lively(norm)
        for norm in (
            Norm(LayerNorm(weight=False, bias=False), 8),
            Norm(LayerNorm(), 8, heads=2),
            Norm(RMSNorm(), 8, heads=2),
        )
    )
    assert bare.weight is bare.bias is None and own.weight is not None and own.bias is not None
    assert own.weight.shape == own.bias.shape == (2, 8)
    torch.testing.assert_close(bare(x), F.layer_norm(x, (8,)))
    assert rms.weight is not None
    for head in (0, 1):
        one = F.layer_norm(x[:, :, head], (8,), own.weight[head], own.bias[head])
        torch.testing.assert_close(own(x)[:, :, head], one)
        torch.testing.assert_close(rms(x)[:, :, head], F.rms_norm(x[:, :, head], (8,), rms.weight[head], 1e-6))


def test_rms_norm_in_half_precision_is_transformers() -> None:
    """Llama casts before it multiplies by w, Gemma and OLMo 2 after."""
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

    x, w = torch.randn(4, 16).bfloat16(), torch.randn(16).bfloat16()
    for theirs, choice in (
        (LlamaRMSNorm(16, eps=1e-6), RMSNorm()),
        (GemmaRMSNorm(16, eps=1e-6), RMSNorm(plus_one=True)),
        (Olmo2RMSNorm(16, eps=1e-6), RMSNorm(round_last=True)),
    ):
        ours = Norm(choice, 16).bfloat16()
        for norm in (theirs.bfloat16(), ours):
            norm.weight.data.copy_(w)
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("activation", ["relu", "relu_squared", "gelu", "gelu_tanh", "silu", "tanh"])
def test_feed_forwards_are_their_formulas(activation: str) -> None:
    from transformers.activations import ACT2FN

    name = {"relu_squared": "relu2", "gelu_tanh": "gelu_new"}.get(activation, activation)
    x = torch.randn(2, 3, tiny.WIDTH)
    plain = tiny.lively(FeedForward(FeedForwardConfig(d_ff=20, activation=activation), tiny.WIDTH))  # type: ignore[arg-type]
    torch.testing.assert_close(plain(x), plain.down(ACT2FN[name](plain.up(x))))
    gated = tiny.lively(FeedForward(replace(plain.config, gated=True, bias=False), tiny.WIDTH))
    torch.testing.assert_close(gated(x), gated.down(ACT2FN[name](gated.gate(x)) * gated.up(x)))  # type: ignore[misc]
    assert gated.up.bias is None


def test_q_k_and_v_are_clipped_before_they_are_normed() -> None:
    config = replace(tiny.GROUPED, clip=0.1, qk_norm=QKNorm(norm=RMSNorm()))
    attention = block(attention=config).attention
    x = torch.randn(1, 4, tiny.WIDTH)
    taken = []
    attention.kernel = lambda q, k, v, scoring, dropout=0.0: taken.extend((q, k, v)) or q  # type: ignore[func-returns-value]
    attention(x, mask=MASK)
    for heads, projection, norm in zip(
        taken,
        (attention.q_proj, attention.k_proj, attention.v_proj),
        (attention.q_norm, attention.k_norm, lambda y: y),
        strict=True,
    ):
        assert projection(x).abs().max() > 0.1
        torch.testing.assert_close(heads.transpose(1, 2), norm(projection(x).clamp(-0.1, 0.1).unflatten(-1, (-1, 8))))


@pytest.mark.parametrize("over", ["head", "width"])
def test_q_and_k_are_normed_before_they_meet(over: str) -> None:
    config = replace(tiny.GROUPED, qk_norm=QKNorm(norm=RMSNorm(), over=over))  # type: ignore[arg-type]
    attention = block(attention=config).attention
    x = torch.randn(1, 4, tiny.WIDTH)
    widths = {"head": (8, 8), "width": (32, 16)}[over]
    assert (attention.q_norm.weight.shape[0], attention.k_norm.weight.shape[0]) == widths  # type: ignore[union-attr]
    taken = []
    attention.kernel = lambda q, k, v, scoring, dropout=0.0: taken.extend((q, k)) or q  # type: ignore[func-returns-value]
    attention(x, mask=MASK)
    for x_, projection, norm in (
        (taken[0], attention.q_proj, attention.q_norm),
        (taken[1], attention.k_proj, attention.k_norm),
    ):
        raw = projection(x)
        expected = norm(raw) if over == "width" else norm(raw.unflatten(-1, (-1, 8))).flatten(-2)
        torch.testing.assert_close(x_.transpose(1, 2).flatten(2), expected)


def test_each_head_may_be_normed_by_weights_of_its_own() -> None:
    config = replace(tiny.GROUPED, qk_norm=QKNorm(norm=LayerNorm(bias=False), shared=False))
    attention = block(attention=config).attention
    x = torch.randn(1, 4, tiny.WIDTH)
    taken = []
    attention.kernel = lambda q, k, v, scoring, dropout=0.0: taken.extend((q, k)) or q  # type: ignore[func-returns-value]
    attention(x, mask=MASK)
    for heads, projection, norm in (
        (taken[0], attention.q_proj, attention.q_norm),
        (taken[1], attention.k_proj, attention.k_norm),
    ):
        assert norm.weight.shape == (heads.shape[1], 8)  # type: ignore[union-attr]
        for head in range(heads.shape[1]):
            raw = projection(x)[..., 8 * head : 8 * head + 8]
            torch.testing.assert_close(heads[:, head], F.layer_norm(raw, (8,), norm.weight[head]))  # type: ignore[index, union-attr]


def test_heads_may_be_wider_than_their_share_and_the_scale_is_free() -> None:
    config = AttentionConfig(n_heads=4, n_kv_heads=1, d_head=24, scale=1.0)
    attention = block(attention=config).attention
    assert attention.q_proj.out_features == 96 and attention.k_proj.out_features == 24 and attention.scale == 1.0
    assert attention(torch.randn(1, 3, tiny.WIDTH), mask=MASK).shape == (1, 3, tiny.WIDTH)


# ── the stack ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_shared_layers_are_one_block_run_again() -> None:
    shared = tiny.decoder(share_layers=True)
    twice = tiny.decoder()
    assert len(shared.decoder.blocks) == 1 and shared.n_parameters() < twice.n_parameters()
    weights = shared.state_dict()
    weights |= {name.replace("blocks.0", "blocks.1"): w for name, w in weights.items() if "blocks.0" in name}
    twice.load_state_dict(weights)
    ids = tiny.ids(2, 7)
    assert torch.equal(shared(ids).logits, twice(ids).logits)


def test_layers_share_a_block_within_their_group() -> None:
    grouped = tiny.decoder(n_layers=4, share_layers=True, layer_groups=2)
    assert len(grouped.decoder.blocks) == 2
    assert [grouped.decoder.config.block_of(layer) for layer in range(4)] == [0, 0, 1, 1]
    apart = tiny.decoder(n_layers=4)
    weights = grouped.state_dict()
    for layer in (3, 2, 1, 0):
        own = f"blocks.{layer}."
        shared = {name: w for name, w in grouped.state_dict().items() if f"blocks.{layer // 2}." in name}
        weights |= {name.replace(f"blocks.{layer // 2}.", own): w for name, w in shared.items()}
    apart.load_state_dict(weights)
    ids = tiny.ids(2, 7)
    assert torch.equal(grouped(ids).logits, apart(ids).logits)


def test_an_embedding_is_projected_where_it_is_narrower_or_asked_to_be() -> None:
    for choice, projects in (
        (EmbeddingConfig(width=tiny.WIDTH), False),
        (EmbeddingConfig(width=6), True),
        (EmbeddingConfig(width=tiny.WIDTH, project=True), True),
    ):
        config = replace(tiny.decoder().config, embedding=choice, head=None)
        model = build(config)
        assert (model.decoder.embedding.project is not None) == projects  # type: ignore[union-attr]
        assert model(tiny.ids(1, 5)).hidden.shape == (1, 5, tiny.WIDTH)  # type: ignore[call-arg]


def test_each_layer_may_be_of_its_own_kind() -> None:
    model = tiny.decoder(
        Rotary(),
        attention=(replace(tiny.GROUPED, window=3), AttentionConfig(n_heads=2, d_head=6)),
        feedforward=(FeedForwardConfig(d_ff=10), FeedForwardConfig(d_ff=20, gated=True)),
    )
    first, second = model.decoder.blocks
    assert first.attention.config.window == 3 and second.attention.d_head == 6  # type: ignore[union-attr]
    assert first.feedforward.up.out_features == 10 and second.feedforward.gate is not None  # type: ignore[union-attr]
    ids = tiny.ids(1, 9)
    other = ids.clone()
    other[0, 0] = (other[0, 0] + 1) % tiny.VOCABULARY
    states, changed = (model(i, keep_hidden=True).hidden_states for i in (ids, other))
    assert torch.equal(states[1][0, 3:], changed[1][0, 3:]), "the first layer sees three tokens"
    assert not torch.equal(states[2][0, 3:], changed[2][0, 3:]), "the second sees all"


def test_hidden_states_are_the_stream_after_each_layer() -> None:
    model = tiny.decoder(Rotary())
    ids = tiny.ids(1, 6)
    out = model(ids, keep_hidden=True)
    assert len(out.hidden_states) == 3
    assert torch.equal(out.hidden_states[0], model.decoder.embedding(ids, torch.arange(6)[None]))
    assert torch.equal(out.hidden_states[-1], out.hidden), "the last one is normed, as transformers has it"
    assert model(ids).hidden_states == ()
    both = tiny.translator()(ids, tiny.ids(1, 4), keep_hidden=True)
    assert [s.shape[1] for s in both.hidden_states] == [6, 6, 6, 4, 4, 4]
    cache = model.new_cache()
    model(ids[:, :4], cache=cache)
    assert [s.shape[1] for s in model(ids[:, 4:], cache=cache, keep_hidden=True).hidden_states] == [2, 2, 2]


def test_one_table_of_relative_biases_serves_a_stack() -> None:
    model = tiny.translator(T5Bias(buckets=8, max_distance=20))
    tables = [name for name, _ in model.named_parameters() if name.endswith("bias.weight")]
    assert tables == ["encoder.bias.weight", "decoder.bias.weight"]
    assert model.encoder.bias.bidirectional and not model.decoder.bias.bidirectional  # type: ignore[union-attr]


# ── the embedding ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_embedding_is_its_formula() -> None:
    choice = EmbeddingConfig(width=12, scale=3.0, norm=LayerNorm(), token_types=2)
    model = tiny.encoder(whole={"embedding": choice})
    e = model.encoder.embedding
    ids, types = tiny.ids(2, 5), torch.tensor([[0, 0, 1, 1, 1]] * 2)
    summed = e.tokens(ids) * 3.0 + e.types.weight[types] + e.positions.weight[:5]  # type: ignore[union-attr]
    expected = e.project(F.layer_norm(summed, (12,), e.norm.weight, e.norm.bias))  # type: ignore[union-attr, misc]
    torch.testing.assert_close(e(ids, torch.arange(5).expand(2, 5), types), expected)
    assert e.tokens.weight.shape == (tiny.VOCABULARY, 12) and model(ids).hidden.shape == (2, 5, tiny.WIDTH)


@pytest.mark.parametrize("width", [12, 48, 32])
def test_a_table_projected_around_the_stack_is_its_formula(width: int) -> None:
    """OPT 350m: tokens are projected before their positions are added, and the last vectors back, for the head."""
    choice = EmbeddingConfig(width=width, projected="around")
    model = tiny.decoder(whole={"embedding": choice, "head": LanguageModel()})
    stack, ids = model.decoder, tiny.ids(2, 5)
    e, states = stack.embedding, model(ids, keep_hidden=True).hidden_states
    assert (e.project is None) == (stack.project is None) == (width == tiny.WIDTH)
    assert e.project is None or e.project.bias is None
    tokens = e.tokens(ids) if e.project is None else e.tokens(ids) @ e.project.weight.T
    torch.testing.assert_close(states[0], tokens + e.positions.weight[:5])  # type: ignore[union-attr]
    last = stack.norm(stack.blocks[1](states[1], mask=MASK))  # type: ignore[misc]
    last = last if stack.project is None else last @ stack.project.weight.T
    torch.testing.assert_close(states[2], last)
    assert last.shape == (2, 5, width)
    torch.testing.assert_close(model(ids).logits, last @ e.tokens.weight.T)


def test_heads_read_the_width_that_the_last_vectors_have() -> None:
    choice = EmbeddingConfig(width=12, projected="around")
    for head in (LanguageModel(tied=False), SequenceClassification(labels=("a", "b"), hidden="tanh")):
        model = tiny.decoder(whole={"embedding": choice, "head": head, "pooler": "tanh"})
        out = model(tiny.ids(2, 5))
        assert out.hidden.shape[-1] == out.pooled.shape[-1] == 12 and out.logits.isfinite().all()


def test_the_scale_is_rounded_as_gemma_does() -> None:
    model = tiny.decoder(NoPosition(), whole={"embedding": EmbeddingConfig(scale=3072**0.5)}).bfloat16()
    e, ids = model.decoder.embedding, tiny.ids(1, 3)
    assert torch.equal(e(ids, torch.zeros(1, 3).long()), e.tokens(ids) * torch.tensor(55.5).bfloat16())


def test_encoder_and_decoder_share_a_table_unless_told_otherwise() -> None:
    together, apart = tiny.translator(), tiny.translator(whole={"shared_embedding": False})
    assert together.encoder.embedding.tokens is together.decoder.embedding.tokens
    assert apart.encoder.embedding.tokens is not apart.decoder.embedding.tokens
    assert apart.n_parameters() - together.n_parameters() == tiny.VOCABULARY * tiny.WIDTH


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["plain", "softcap", "relative bias", "translator"])
def test_fast_paths_run_in_training_with_dropout(kind: str) -> None:
    dropping = {
        "attention": replace(tiny.GROUPED, dropout=0.3, softcap=20.0 if kind == "softcap" else None),
        "feedforward": replace(tiny.FEEDFORWARD, dropout=0.3),
        "dropout": 0.3,
    }
    position = T5Bias(buckets=8, max_distance=20) if kind == "relative bias" else None
    whole = {"embedding": EmbeddingConfig(dropout=0.3)}
    ids, real = tiny.padded([tiny.ids(1, 9)[0], tiny.ids(1, 4)[0]])
    if kind == "translator":
        model = tiny.translator(whole=whole, **dropping)
        out = model.train()(ids, ids, attention_mask=real, decoder_attention_mask=real)
        again = model(ids, ids, attention_mask=real, decoder_attention_mask=real)
        quiet = [model.eval()(ids, ids, attention_mask=real).logits for _ in range(2)]
    else:
        model = tiny.decoder(position, whole=whole, **dropping)  # type: ignore[assignment]
        out, again = (model.train()(ids, attention_mask=real) for _ in range(2))
        quiet = [model.eval()(ids, attention_mask=real).logits for _ in range(2)]
    assert not torch.equal(out.logits, again.logits), "dropout draws anew"
    assert torch.equal(quiet[0], quiet[1]), "and sleeps in eval"
    out.logits[real].sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


def test_half_precision_runs_throughout() -> None:
    for position in tiny.POSITIONS.values():
        model = tiny.decoder(position, attention=tiny.GROUPED, norm=RMSNorm()).bfloat16()
        out = model(tiny.ids(2, 20)).logits
        assert out.dtype == torch.bfloat16 and out.isfinite().all()


def test_build_gives_the_architecture_that_the_config_describes() -> None:
    stack, cross = tiny.stack(), tiny.stack(cross_attention=tiny.ATTENTION)
    sizes = {"vocab_size": 9, "d_model": 32, "context": 8}
    assert type(build(ModelConfig(**sizes, encoder=stack))).__name__ == "Encoder"  # type: ignore[arg-type]
    assert type(build(ModelConfig(**sizes, decoder=stack))).__name__ == "Decoder"  # type: ignore[arg-type]
    both = build(ModelConfig(**sizes, encoder=stack, decoder=cross))  # type: ignore[arg-type]
    assert type(both).__name__ == "EncoderDecoder" and both.device.type == "cpu" and both.dtype == torch.float32


def test_a_state_dict_goes_round() -> None:
    config = StackConfig(n_layers=2, attention=AttentionConfig(n_heads=4, sinks=True), feedforward=tiny.FEEDFORWARD)
    whole = ModelConfig(vocab_size=9, d_model=32, context=8, decoder=config, head=LanguageModel(tied=False, bias=True))
    one, other = build(whole), build(whole)
    ids: Tensor = torch.tensor([[1, 2, 3]])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(ids).logits, other(ids).logits)
