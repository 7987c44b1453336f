"""Configs: frozen, keyword-only, and each refusal one line that says what, where and what to do."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import replace

import pytest

from clearhead.errors import ConfigError
from clearhead.model import config as c
from clearhead.model import presets
from clearhead.model.recurrent import RecurrentConfig
from tests.model import tiny

CONFIGS = [x for x in vars(c).values() if inspect.isclass(x) and dataclasses.is_dataclass(x)] + [RecurrentConfig]
YARN, DYNAMIC = {"factor": 2.0, "original_context": 8}, {"factor": 2.0, "original_context": 8}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context": 8}


def model(**choices: object) -> c.ModelConfig:
    whole = c.ModelConfig(vocab_size=10, d_model=32, context=16, decoder=tiny.stack())
    return replace(whole, **choices)  # type: ignore[arg-type]


def stack(**choices: object) -> c.StackConfig:
    return replace(tiny.stack(), **choices)  # type: ignore[arg-type]


def longrope(
    *, short: tuple[float, ...] = (1.0,) * 4, long: tuple[float, ...] = (1.0,) * 4, context: int = 8
) -> c.Rotary:
    return c.Rotary(scaling=c.LongRopeScaling(short_factor=short, long_factor=long, original_context=context))


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: c.AttentionConfig(n_heads=0), "AttentionConfig.n_heads=0 lies outside 1…"),
    (lambda: c.AttentionConfig(n_heads=2**41), "choose a value in that range"),
    (lambda: c.AttentionConfig(n_heads=True), "AttentionConfig.n_heads=True is not a whole number"),
    (lambda: c.AttentionConfig(n_heads=12, n_kv_heads=5), "choose n_kv_heads that divides 12"),
    (lambda: c.AttentionConfig(n_heads=4, window=0), "AttentionConfig.window=0"),
    (lambda: c.AttentionConfig(n_heads=4, scale=0.0), "AttentionConfig.scale=0.0 must be above 0.0"),
    (lambda: c.AttentionConfig(n_heads=4, softcap=-1.0), "AttentionConfig.softcap=-1.0 must be above"),
    (lambda: c.AttentionConfig(n_heads=4, softcap=float("nan")), "is not a finite number"),
    (lambda: c.AttentionConfig(n_heads=4, dropout=1.0), "choose 0.0 ≤ dropout < 1.0"),
    (lambda: c.AttentionConfig(n_heads=12).head_width(100), "d_model=100 does not divide into n_heads=12 equal heads"),
    (lambda: c.AttentionConfig(n_heads=12).head_width(100), "choose a multiple of 12, e.g. 96"),
    (lambda: c.FeedForwardConfig(d_ff=0), "FeedForwardConfig.d_ff=0"),
    (lambda: c.FeedForwardConfig(d_ff=8, activation="swish"), "choose one of relu, relu_squared, gelu"),  # type: ignore[arg-type]
    (lambda: c.FeedForwardConfig(d_ff=8, dropout=-0.1), "FeedForwardConfig.dropout=-0.1"),
    (lambda: c.LayerNorm(eps=0.0), "LayerNorm.eps=0.0"),
    (lambda: c.RMSNorm(eps=-1e-6), "RMSNorm.eps=-1e-06"),
    (lambda: c.QKNorm(norm=c.RMSNorm(), over="all"), "QKNorm.over='all' is not a choice"),  # type: ignore[arg-type]
    (lambda: c.QKNorm(norm=c.RMSNorm(), over="width", shared=False), "one norm for all heads; choose over='head'"),
    (lambda: c.Sinusoidal(layout="x"), "Sinusoidal.layout='x'"),  # type: ignore[arg-type]
    (lambda: c.Sinusoidal(offset=-1), "Sinusoidal.offset=-1"),
    (lambda: c.Learned(offset=-1), "Learned.offset=-1"),
    (lambda: c.Rotary(theta=0.0), "Rotary.theta=0.0"),
    (lambda: c.Rotary(fraction=1.5), "Rotary.fraction=1.5 is above 1"),
    (lambda: c.Rotary(layout="x"), "Rotary.layout='x'"),  # type: ignore[arg-type]
    (lambda: c.Rotary().width(7), "choose a head width (or fraction) that gives an even number above 0"),
    (lambda: c.Rotary(fraction=0.01).width(8), "of a head 8 wide is 0"),
    (lambda: c.LinearScaling(factor=0.0), "LinearScaling.factor=0.0"),
    (lambda: c.DynamicScaling(**{**DYNAMIC, "original_context": 0}), "DynamicScaling.original_context=0"),
    (lambda: c.Llama3Scaling(**{**LLAMA3, "high_freq_factor": 1.0}), "must exceed low_freq_factor=1.0; swap them"),
    (lambda: c.YarnScaling(**YARN, beta_fast=0.0), "YarnScaling.beta_fast=0.0"),
    (lambda: c.YarnScaling(**YARN, mscale=-1.0), "YarnScaling.mscale=-1.0 must be at least 0.0"),
    (lambda: longrope(short=(1.0,)), "1 short and 4 long factors"),
    (lambda: longrope(short=(), long=()), "0 short and 0 long factors"),
    (lambda: longrope(short=(0.0,) * 4), "every factor must be a finite number above 0"),
    (lambda: longrope(context=1), "LongRopeScaling.original_context=1"),
    (lambda: longrope().width(16), "has 4 factors and 8 pairs of widths turn; give 8 short and 8 long ones"),
    (lambda: c.T5Bias(buckets=3), "T5Bias.buckets=3"),
    (lambda: c.T5Bias(buckets=32, max_distance=16), "must exceed buckets/2=16"),
    (lambda: c.ALiBi(max_bias=0.0), "ALiBi.max_bias=0.0"),
    (lambda: stack(n_layers=0), "StackConfig.n_layers=0 lies outside 1…4096"),
    (lambda: stack(norm_place="under"), "choose one of before, after, both, output"),
    (lambda: stack(dropout=2.0), "StackConfig.dropout=2.0"),
    (lambda: stack(attention=(tiny.ATTENTION,)), "StackConfig.attention describes 1 layers and n_layers=2"),
    (lambda: stack(feedforward=(tiny.FEEDFORWARD,) * 3), "StackConfig.feedforward describes 3 layers and n_layers=2"),
    (lambda: stack(attention=(tiny.ATTENTION,) * 2, share_layers=True), "share_layers has one block for all layers"),
    (lambda: stack(layer_groups=2), "layer_groups are layers that share a block; choose share_layers=True"),
    (lambda: stack(share_layers=True, layer_groups=3), "does not divide into layer_groups=3 equal groups"),
    (lambda: stack(residual=c.Parallel(), norm_place="after"), "a parallel residual normalises before, not 'after'"),
    (lambda: stack(residual=c.Parallel(), cross_attention=tiny.ATTENTION), "choose Sequential()"),
    (
        lambda: stack(position=c.ALiBi(), attention=replace(tiny.ATTENTION, rotary=c.Rotary())),
        "a layer cannot have rotary positions in a stack of relative biases",
    ),
    (
        lambda: stack(position=c.T5Bias(), attention=(tiny.ATTENTION, c.AttentionConfig(n_heads=2))),
        "one table for all layers; give each layer as many heads",
    ),
    (lambda: c.EmbeddingConfig(token_types=-1), "EmbeddingConfig.token_types=-1"),
    (lambda: c.EmbeddingConfig(width=0), "EmbeddingConfig.width=0"),
    (lambda: c.EmbeddingConfig(scale=0.0), "EmbeddingConfig.scale=0.0"),
    (lambda: c.EmbeddingConfig(projected="out"), "EmbeddingConfig.projected='out'"),  # type: ignore[arg-type]
    (lambda: c.NormalInit(std=0.0), "NormalInit.std=0.0"),
    (lambda: c.T5Init(factor=0.0), "T5Init.factor=0.0"),
    (lambda: c.SpecialTokens(eos=2), "SpecialTokens.eos=2 is no tuple of ids; write (2,) for one"),  # type: ignore[arg-type]
    (lambda: c.LanguageModel(softcap=0.0), "LanguageModel.softcap=0.0"),
    (lambda: c.MaskedLanguageModel(activation="x"), "MaskedLanguageModel.activation='x'"),  # type: ignore[arg-type]
    (lambda: c.SequenceClassification(labels=()), "SequenceClassification.labels is empty"),
    (lambda: c.SequenceClassification(labels=("a",), pooling="x"), "SequenceClassification.pooling='x'"),  # type: ignore[arg-type]
    (lambda: c.SequenceClassification(labels=("a",), hidden="x"), "SequenceClassification.hidden='x'"),  # type: ignore[arg-type]
    (lambda: c.SequenceClassification(labels=("a",), dropout=1.0), "SequenceClassification.dropout=1.0"),
    (lambda: c.TokenClassification(labels=()), "TokenClassification.labels is empty"),
    (lambda: c.SentenceEmbedding(pooling="pooler"), "SentenceEmbedding.pooling='pooler'"),  # type: ignore[arg-type]
    (lambda: model(decoder=None), "neither an encoder nor a decoder; give at least one StackConfig"),
    (lambda: model(vocab_size=0), "ModelConfig.vocab_size=0"),
    (lambda: model(context=-1), "ModelConfig.context=-1"),
    (
        lambda: model(d_model=30),
        "d_model=30 does not divide into n_heads=4 equal heads; choose a multiple of 4, e.g. 32",
    ),
    (lambda: model(decoder=tiny.stack(c.Rotary()), d_model=20), "turn pairs of widths"),
    (lambda: model(decoder=tiny.stack(longrope()), d_model=64), "LongRopeScaling has 4 factors and 8 pairs"),
    (
        lambda: model(decoder=tiny.stack(c.Sinusoidal(), attention=c.AttentionConfig(n_heads=3)), d_model=33),
        "sinusoidal positions need an even width",
    ),
    (lambda: model(encoder=tiny.stack()), "needs StackConfig.cross_attention to read it"),
    (
        lambda: model(
            encoder=tiny.stack(),
            decoder=stack(cross_attention=tiny.ATTENTION),
            embedding=c.EmbeddingConfig(width=8, projected="around"),
        ),
        "an encoder is read at d_model; EmbeddingConfig.projected='around' is for one stack",
    ),
    (lambda: model(decoder=stack(cross_attention=tiny.ATTENTION)), "reads an encoder, and ModelConfig.encoder is None"),
    (
        lambda: model(decoder=None, encoder=stack(cross_attention=tiny.ATTENTION)),
        "an encoder has nothing to cross-attend to",
    ),
    (
        lambda: model(head=c.SequenceClassification(labels=("a",), pooling="pooler")),
        "the head reads the pooler, and ModelConfig.pooler is None",
    ),
    (
        lambda: model(head=c.SequenceClassification(labels=("a",), pooling="eos")),
        "the head reads the end token, and SpecialTokens.eos names none",
    ),
    (
        lambda: model(decoder_vocab_size=7),
        "decoder_vocab_size=7 is not vocab_size=10, and encoder and decoder have one",
    ),
    (
        lambda: model(
            decoder=tiny.stack(c.Sinusoidal(endpoint=True), attention=c.AttentionConfig(n_heads=1)), d_model=2
        ),
        "sinusoidal positions with an endpoint need two waves or more",
    ),
    (lambda: model(pooler="x"), "ModelConfig.pooler='x'"),
    (
        lambda: model(embedding=c.EmbeddingConfig(width=8), head=c.LanguageModel()),
        "the embedding, which is 8 wide and not d_model=32; choose LanguageModel(tied=False)",
    ),
    (lambda: RecurrentConfig(vocab_size=5, d_model=8, cell="mamba"), "choose one of rnn, lstm, gru"),  # type: ignore[arg-type]
    (lambda: RecurrentConfig(vocab_size=5, d_model=8, n_layers=1000), "is above 256; choose fewer"),
    (lambda: RecurrentConfig(vocab_size=0, d_model=8), "RecurrentConfig.vocab_size=0"),
]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(("make", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_a_refusal_is_one_line_that_says_what_to_do(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    message = str(error.value)
    assert says in message
    assert "\n" not in message and 20 < len(message) < 200 and message.endswith(".")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_configs_are_frozen_and_keyword_only(config: type) -> None:
    assert config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.kw_only for field in dataclasses.fields(config))
    assert config.__doc__ and not config.__doc__.startswith(config.__name__ + "("), "a docstring of its own"


def test_all_of_them_are_exported() -> None:
    assert {config.__name__ for config in CONFIGS} - {"RecurrentConfig"} <= set(c.__all__)
    assert all(hasattr(c, name) for name in c.__all__)


@pytest.mark.parametrize(
    "make", [presets.gpt2, presets.gpt2_xl, presets.gpt3, presets.bert, presets.llama, presets.vaswani]
)
def test_configs_are_values(make: Callable[[], c.ModelConfig]) -> None:
    assert make() == make() and hash(make()) == hash(make())
    assert eval(repr(make()), vars(c) | {"__builtins__": {}}) == make()


def test_what_is_derived() -> None:
    assert presets.gpt2().architecture == "decoder" and presets.bert().architecture == "encoder"
    assert presets.vaswani().architecture == "encoder-decoder" and len(presets.vaswani().stacks) == 2
    assert c.AttentionConfig(n_heads=8, n_kv_heads=2).kv_heads == 2 and c.AttentionConfig(n_heads=8).kv_heads == 8
    assert c.AttentionConfig(n_heads=8, d_head=5).head_width(64) == 5
    local = replace(tiny.ATTENTION, rotary=c.Rotary(theta=10.0))
    mixed = stack(position=c.NoPosition(), attention=(local, tiny.ATTENTION))
    assert mixed.rotary(0) == c.Rotary(theta=10.0) and mixed.rotary(1) is None
    none = replace(tiny.ATTENTION, rotary=c.NoPosition())
    assert stack(position=c.Rotary(), attention=(none, tiny.ATTENTION)).rotary(0) is None


@pytest.mark.parametrize("name", tiny.POSITIONS)
def test_which_positions_end_at_the_context(name: str) -> None:
    endless = ("T5", "ALiBi", "ALiBi, rounded", "none", "dynamic")
    assert tiny.stack(tiny.POSITIONS[name]).bounded == (name not in endless)
