"""Which family a model that was built from scratch is exported as: the plainest that fits, or one clear line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from clearhead.checkpoint import export, families, load
from clearhead.errors import CheckpointError
from clearhead.model import ModelConfig, build, presets
from clearhead.model.config import (
    ALiBi,
    AttentionConfig,
    Biases,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModel,
    LayerNorm,
    Learned,
    LinearScaling,
    MaskedLanguageModel,
    NoPosition,
    Parallel,
    QKNorm,
    RMSNorm,
    Rotary,
    SequenceClassification,
    Sequential,
    Sinusoidal,
    StackConfig,
    T5Bias,
    TokenClassification,
)
from tests.checkpoint import support

LLAMA = support.tiny_config()
GPT2 = presets.gpt2(n_layers=1, n_heads=2, d_model=8, vocab_size=20, context=16)
BERT = presets.bert(n_layers=1, n_heads=2, d_model=8, vocab_size=20, context=16)
LABELS = ("no", "yes")


def attention(**more: Any) -> ModelConfig:
    """The Llama with other attention."""
    assert LLAMA.decoder is not None and isinstance(LLAMA.decoder.attention, AttentionConfig)
    return replace(LLAMA, decoder=replace(LLAMA.decoder, attention=replace(LLAMA.decoder.attention, **more)))


def layers(*changes: dict[str, Any]) -> ModelConfig:
    """The Llama with layers that differ."""
    assert LLAMA.decoder is not None and isinstance(LLAMA.decoder.attention, AttentionConfig)
    own = tuple(replace(LLAMA.decoder.attention, **change) for change in changes)
    return replace(LLAMA, decoder=replace(LLAMA.decoder, attention=own))


def stack(config: ModelConfig, **more: Any) -> ModelConfig:
    assert config.decoder is not None
    return replace(config, decoder=replace(config.decoder, **more))


CHOSEN: dict[str, tuple[ModelConfig, str]] = {
    "GPT-2": (GPT2, "gpt2"),
    "GPT-2, untied": (replace(GPT2, head=LanguageModel(tied=False)), "gpt2"),
    "GPT-2 with a classifier": (
        replace(GPT2, head=SequenceClassification(labels=LABELS, pooling="last", bias=False)),
        "gpt2",
    ),
    "Llama": (LLAMA, "llama"),
    "Llama, tied": (replace(LLAMA, head=LanguageModel(tied=True)), "llama"),
    "Llama without a head": (replace(LLAMA, head=None), "llama"),
    "Llama with labels for tokens": (replace(LLAMA, head=TokenClassification(labels=LABELS)), "llama"),
    "Llama, stretched": (stack(LLAMA, position=Rotary(scaling=LinearScaling(factor=2.0))), "llama"),
    "Llama with biases": (attention(bias=Biases()), "llama"),
    "Llama with a window": (attention(window=8), "mistral"),
    "Llama, one key/value head": (attention(n_kv_heads=1), "llama"),
    "Llama, heads that do not divide the width": (attention(n_heads=6, d_head=4), "mistral"),
    "Llama with two kinds of layers": (layers({"window": 8}, {}), "smollm3"),
    "Llama that turns in one layer of two": (layers({}, {"rotary": NoPosition()}), "smollm3"),
    "Llama with biases on q, k and v": (attention(bias=Biases(out=False)), "qwen2"),
    "Llama with normed queries": (attention(qk_norm=QKNorm(norm=RMSNorm(eps=1e-5))), "qwen3"),
    "BERT": (BERT, "bert"),
    "BERT without a pooler": (replace(BERT, pooler=None), "bert"),
    "BERT that fills in": (replace(BERT, pooler=None, head=MaskedLanguageModel(norm=LayerNorm(eps=1e-12))), "bert"),
    "BERT with labels for tokens": (replace(BERT, pooler=None, head=TokenClassification(labels=LABELS)), "bert"),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_plainest_family_that_fits(name: str, tmp_path: Path) -> None:
    config, family = CHOSEN[name]
    export(build(config), tmp_path / "out")
    assert load(tmp_path / "out").family == family


def test_the_order_is_one_whatever_order_the_files_are_found_in(monkeypatch: pytest.MonkeyPatch) -> None:
    order = [family.model_type for family in families.plainest_first()]
    assert sorted(order) == sorted(families.families())
    assert order[: len(families.PLAIN)] == list(families.PLAIN)
    backwards = dict(reversed(families.families().items()))
    monkeypatch.setattr(families, "families", lambda: backwards)
    assert [family.model_type for family in families.plainest_first()] == order


def some_stack(pick: Random, cross: bool) -> StackConfig:
    """A stack that no paper has."""

    def one(rotary: bool = True) -> AttentionConfig:
        norm = QKNorm(norm=pick.choice([RMSNorm(), LayerNorm()]), over=pick.choice(["head", "width"]))
        return AttentionConfig(
            n_heads=2,
            n_kv_heads=pick.choice([1, 2]),
            d_head=pick.choice([None, 4, 6]),
            scale=pick.choice([None, 1.0]),
            bias=Biases(**{name: pick.random() < 0.5 for name in ("q", "k", "v", "out")}),
            softcap=pick.choice([None, 20.0]),
            window=pick.choice([None, 4]),
            qk_norm=pick.choice([None, norm]),
            rotary=pick.choice([None, NoPosition()]) if rotary else None,
        )

    count = pick.randint(1, 3)
    parallel = pick.random() < 0.5 and not cross
    return StackConfig(
        n_layers=count,
        attention=pick.choice([one(), tuple(one() for _ in range(count))]),
        feedforward=FeedForwardConfig(
            d_ff=6,
            activation=pick.choice(["relu", "relu_squared", "gelu", "gelu_tanh", "silu", "tanh"]),
            gated=pick.random() < 0.5,
            bias=pick.random() < 0.5,
        ),
        cross_attention=one(rotary=False) if cross else None,
        position=pick.choice(
            [NoPosition(), Sinusoidal(), Learned(), Learned(offset=2), Rotary(), Rotary(), T5Bias(), ALiBi()]
        ),
        norm=pick.choice([LayerNorm(), LayerNorm(bias=False), RMSNorm(), RMSNorm(plus_one=True)]),
        norm_place="before" if parallel else pick.choice(["before", "after", "both", "output"]),
        final_norm=pick.random() < 0.5,
        residual=Parallel(shared_norm=pick.random() < 0.5) if parallel else Sequential(),
    )


def some_model(pick: Random) -> ModelConfig:
    """A model that no paper has."""
    kind = pick.choice(["encoder", "decoder", "both"])
    heads = [
        None,
        LanguageModel(tied=pick.random() < 0.5, bias=pick.random() < 0.5, scale=pick.choice([None, 0.5])),
        MaskedLanguageModel(),
        SequenceClassification(labels=LABELS, pooling=pick.choice(["first", "last", "mean"])),
        TokenClassification(labels=LABELS),
    ]
    return ModelConfig(
        vocab_size=11,
        d_model=8,
        context=16,
        encoder=some_stack(pick, cross=False) if kind != "decoder" else None,
        decoder=some_stack(pick, cross=kind == "both") if kind != "encoder" else None,
        embedding=EmbeddingConfig(
            scale=pick.choice([None, 2.0]), norm=pick.choice([None, LayerNorm()]), token_types=pick.choice([0, 2])
        ),
        head=pick.choice(heads),
        pooler=pick.choice([None, "tanh"]),
    )


@pytest.mark.usefixtures("as_a_user")
def test_whatever_a_model_is_a_family_writes_it_or_says_what_does_not_fit() -> None:
    for seed in range(40):
        config = some_model(Random(seed))
        for family in families.families().values():
            try:
                family.write(config)
            except CheckpointError as error:
                assert str(error).startswith(f"family {family.model_type} cannot hold this model: "), (seed, error)
                assert "\n" not in str(error), (seed, error)
