"""Presets. Well-known geometries, by their papers; a starting point for your own."""

from __future__ import annotations

from clearhead.model.config import (
    AttentionConfig,
    Biases,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModel,
    LayerNorm,
    Learned,
    ModelConfig,
    NormalInit,
    RMSNorm,
    Rotary,
    Sinusoidal,
    StackConfig,
    XavierInit,
)


def gpt2(
    *,
    n_layers: int = 12,
    n_heads: int = 12,
    d_model: int = 768,
    vocab_size: int = 50_257,
    context: int = 1024,
    dropout: float = 0.0,
) -> ModelConfig:
    """GPT-2 (Radford et al. 2019): 124,439,808 parameters at its smallest."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        context=context,
        decoder=StackConfig(
            n_layers=n_layers,
            attention=AttentionConfig(n_heads=n_heads, dropout=dropout),
            feedforward=FeedForwardConfig(d_ff=4 * d_model, activation="gelu_tanh"),
            position=Learned(),
            dropout=dropout,
        ),
        embedding=EmbeddingConfig(dropout=dropout),
        head=LanguageModel(tied=True),
        init=NormalInit(std=0.02, scale_residual=True),
    )


def gpt2_xl() -> ModelConfig:
    """GPT-2's largest: 48 blocks, 25 heads, 1,600 wide."""
    return gpt2(n_layers=48, n_heads=25, d_model=1600)


def gpt3() -> ModelConfig:
    """GPT-3's largest (Brown et al. 2020): 96 layers, 96 heads, 12,288 wide, 2,048 tokens of context."""
    return gpt2(n_layers=96, n_heads=96, d_model=12_288, context=2048)


def bert(
    *,
    n_layers: int = 12,
    n_heads: int = 12,
    d_model: int = 768,
    vocab_size: int = 30_522,
    context: int = 512,
    dropout: float = 0.0,
) -> ModelConfig:
    """BERT (Devlin et al. 2019), base and uncased, with its pooler: 109,482,240 parameters."""
    norm = LayerNorm(eps=1e-12)
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        context=context,
        encoder=StackConfig(
            n_layers=n_layers,
            attention=AttentionConfig(n_heads=n_heads, dropout=dropout),
            feedforward=FeedForwardConfig(d_ff=4 * d_model, activation="gelu"),
            position=Learned(),
            norm=norm,
            norm_place="after",
            final_norm=False,
            dropout=dropout,
        ),
        embedding=EmbeddingConfig(norm=norm, token_types=2, dropout=dropout),
        pooler="tanh",
    )


def llama(
    *,
    n_layers: int = 16,
    n_heads: int = 32,
    n_kv_heads: int = 8,
    d_model: int = 2048,
    d_ff: int = 8192,
    vocab_size: int = 128_256,
    context: int = 8192,
    theta: float = 500_000.0,
    tied: bool = True,
) -> ModelConfig:
    """Llama (Touvron et al. 2023; Dubey et al. 2024): rotary, RMSNorm, gated SiLU, grouped queries, no biases."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        context=context,
        decoder=StackConfig(
            n_layers=n_layers,
            attention=AttentionConfig(n_heads=n_heads, n_kv_heads=n_kv_heads, bias=Biases.none()),
            feedforward=FeedForwardConfig(d_ff=d_ff, activation="silu", gated=True, bias=False),
            position=Rotary(theta=theta),
            norm=RMSNorm(eps=1e-5),
        ),
        head=LanguageModel(tied=tied),
    )


def vaswani(
    *,
    n_layers: int = 6,
    n_heads: int = 8,
    d_model: int = 512,
    d_ff: int | None = None,
    vocab_size: int = 37_000,
    context: int = 1024,
    dropout: float = 0.1,
) -> ModelConfig:
    """The Transformer of the paper (Vaswani et al. 2017), base: 6 + 6 layers, 8 heads, 512 wide."""
    attention = AttentionConfig(n_heads=n_heads, bias=Biases.none())
    feedforward = FeedForwardConfig(d_ff=d_ff if d_ff is not None else 4 * d_model, activation="relu")

    def stack(cross: AttentionConfig | None) -> StackConfig:
        return StackConfig(
            n_layers=n_layers,
            attention=attention,
            feedforward=feedforward,
            cross_attention=cross,
            position=Sinusoidal(),
            norm_place="after",
            final_norm=False,
            dropout=dropout,
        )

    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        context=context,
        encoder=stack(None),
        decoder=stack(attention),
        embedding=EmbeddingConfig(scale=d_model**0.5, dropout=dropout),
        head=LanguageModel(tied=True),
        init=XavierInit(),
    )
