"""What BART and the encoder-decoders after it share: the keys of their configs, their classes, their tensors' names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clearhead.checkpoint.common import ACTIVATIONS, layers
from clearhead.checkpoint.config_rules import ConfigRow, Convert, Foreign, Ignored, Only, choice, number, whole
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.places import Places
from clearhead.checkpoint.rules import Copy, Fixed, IgnoredTensor, Leading, Row, Same, When, both, with_head
from clearhead.errors import CheckpointError
from clearhead.model.config import (
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModel,
    LayerNorm,
    ModelConfig,
    NormPlace,
    Position,
    SequenceClassification,
    Sinusoidal,
    StackConfig,
)
from clearhead.model.positions import sinusoids

STACKS = ("encoder", "decoder")
TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Each stack's table of tokens, where the two are not the one called `shared`."""
LARGEST_TABLE = 2**30
"""Numbers in a table of sinusoids; such a table is made from a config that any file may hold."""
BY_EOS = SequenceClassification(labels=UNNAMED, pooling="eos", hidden="tanh")
"""How BART labels a text: by what the decoder, which reads the text again, says at its end token."""


def pair_template(position: Position, *, norms: NormPlace, embedding_norm: bool = False) -> ModelConfig:
    """A family's choices: how order is told, where the norms stand (a last one follows those before), and one more."""
    attention = AttentionConfig(n_heads=1)

    def stack(cross: AttentionConfig | None) -> StackConfig:
        return StackConfig(
            n_layers=1,
            attention=attention,
            feedforward=FeedForwardConfig(d_ff=1),
            cross_attention=cross,
            position=position,
            norm_place=norms,
            final_norm=norms == "before",
        )

    return ModelConfig(
        vocab_size=1,
        d_model=4,
        context=1,
        encoder=stack(None),
        decoder=stack(attention),
        embedding=EmbeddingConfig(norm=LayerNorm() if embedding_norm else None),
    )


def _read_width(foreign: Foreign, scaled: bool) -> Places:
    width = foreign.whole("d_model", 1024)
    return {"d_model": width, "embedding.scale": abs(width) ** 0.5 if foreign.flag("scale_embedding", scaled) else None}


def _write_width(config: ModelConfig) -> dict[str, Any]:
    return {"d_model": config.d_model, "scale_embedding": config.embedding.scale is not None}


def pair_keys(
    template: ModelConfig,
    *,
    vocab_size: int,
    activation: str = "gelu",
    scaled: bool = False,
    attention_dropout: float = 0.0,
) -> tuple[ConfigRow, ...]:
    """The rows of the keys that all five have, with the family's defaults; `template` says what old flags must be."""
    encoder = template.encoder
    assert encoder is not None
    fixed = "the classes of its model_type have no other"
    half = "half of an encoder-decoder is not read"
    distilled = "it speaks of how the model was distilled"
    return (
        whole("vocab_size", "vocab_size", default=vocab_size),
        whole("max_position_embeddings", "context", default=1024),
        Convert(("d_model", "scale_embedding"), lambda foreign: _read_width(foreign, scaled), _write_width),
        *(layers(f"{stack}_layers", 12, stack) for stack in STACKS),
        *(whole(f"{stack}_ffn_dim", f"{stack}.feedforward.d_ff", default=4096) for stack in STACKS),
        whole("encoder_attention_heads", "encoder.attention.n_heads", default=16),
        whole("decoder_attention_heads", "decoder.attention.n_heads", "decoder.cross_attention.n_heads", default=16),
        choice("activation_function", ACTIVATIONS, *_each("feedforward.activation"), default=activation),
        number("dropout", *_each("dropout"), "embedding.dropout", default=0.1),
        number(
            "attention_dropout",
            *_each("attention.dropout"),
            "decoder.cross_attention.dropout",
            default=attention_dropout,
        ),
        number("activation_dropout", *_each("feedforward.dropout"), default=0.0),
        number("init_std", "init.std", default=0.02),
        Only("is_encoder_decoder", (True,), half),
        Only("is_decoder", (False,), half),
        Only("add_cross_attention", (False,), half),
        Only("normalize_before", (encoder.norm_place == "before",), fixed),
        Only("add_final_layer_norm", (encoder.final_norm,), fixed),
        Only("normalize_embedding", (template.embedding.norm is not None,), fixed),
        Only("static_position_embeddings", (isinstance(encoder.position, Sinusoidal),), fixed),
        Only("do_blenderbot_90_layernorm", (False,), fixed),
        Ignored("extra_pos_embeddings", "the model_type says where positions begin"),
        Ignored("add_bias_logits", "the bias of the logits is read where it is stored"),
        Ignored("*_layerdrop", "whole layers are left out in training alone"),
        Ignored("num_hidden_layers", "encoder_layers says it", keep=False),
        Ignored("_num_labels", "id2label says how many there are"),
        Ignored("classif_dropout", "an old name of classifier_dropout, of which training alone speaks"),
        Ignored("force_bos_token_to_be_generated", "it tells generation what to do, not the model what to compute"),
        Ignored("output_past", "it chooses what a call returns, not what is computed"),
        Ignored("student_*", distilled),
        Ignored("replacing_rate", distilled),
        Ignored("save_step", distilled),
    )


def _each(place: str) -> tuple[str, ...]:
    return tuple(f"{stack}.{place}" for stack in STACKS)


def tables_differ(foreign: Foreign) -> bool:
    """Whether the file holds a table of tokens for each stack, and they are not the same."""
    if foreign.ours is not None:  # what is tied is stored once, and the stacks' own are looked for in vain
        return not foreign.ours.shared_embedding or tied(foreign.ours)
    one, two = TABLES
    evidence = foreign.evidence
    return evidence.has(one) and evidence.has(two) and not evidence.same(one, two)


def tied(config: ModelConfig) -> bool:
    """Whether the head, if it scores words, scores them by the decoder's own table."""
    return not isinstance(config.head, LanguageModel) or config.head.tied


def _read_shared(foreign: Foreign) -> Places:
    return {"shared_embedding": foreign.flag("tie_word_embeddings", True) or not tables_differ(foreign)}


def _write_shared(config: ModelConfig) -> dict[str, Any]:
    return {"tie_word_embeddings": config.shared_embedding and tied(config)}


SHARED = Convert(("tie_word_embeddings",), _read_shared, _write_shared)
"""Untied from the head, transformers has three tables of tokens, of which the one called `shared` is never used."""


def pair_classes(
    name: str,
    *,
    writer: str = "ForConditionalGeneration",
    bias: bool = True,
    classifier: SequenceClassification | None = None,
    unnamed: int = len(UNNAMED),
) -> Heads:
    """The row of the classes. bias: of the logits. unnamed: how many labels there are where none are named."""
    classes = {
        f"{name}{writer}": Architecture(head=LanguageModel(), bias_weight="final_logits_bias" if bias else None),
        f"{name}Model": Architecture(),
    }
    if classifier is not None:
        classes[f"{name}ForSequenceClassification"] = Architecture(head=classifier)
    default = next(iter(classes))
    return Heads(architectures=classes, default=default, tied=True, table="shared.weight", dropout=0.0, unnamed=unnamed)


def _shared(config: ModelConfig) -> bool:
    return config.shared_embedding


def _apart(config: ModelConfig) -> bool:
    return not config.shared_embedding


def pair_tensors(norms: NormPlace) -> tuple[Row, ...]:
    """The rows of the tensors. norms: where the family's stand."""
    one, two = TABLES
    rows: list[Row] = [
        When(
            _shared,
            Same("shared.weight", "encoder.embedding.tokens.weight"),
            When(lambda config: not tied(config), *(Copy(name, of="shared.weight", written=True) for name in TABLES)),
            *(Copy(name, of="shared.weight") for name in TABLES),
        ),
        When(_apart, Same(one, "encoder.embedding.tokens.weight"), Same(two, "decoder.embedding.tokens.weight")),
    ]
    for stack in STACKS:
        layer, block = f"{stack}.layers.{{layer}}", f"{stack}.blocks.{{layer}}"
        rows += [
            Same(f"{stack}.embed_positions.weight", f"{stack}.embedding.positions.weight"),
            *both(f"{stack}.layernorm_embedding", f"{stack}.embedding.norm"),
            *_attention(f"{layer}.self_attn", f"{block}.attention"),
            *both(f"{layer}.self_attn_layer_norm", f"{block}.attention_norm.{norms}"),
            *_attention(f"{layer}.encoder_attn", f"{block}.cross_attention"),
            *both(f"{layer}.encoder_attn_layer_norm", f"{block}.cross_norm.{norms}"),
            *both(f"{layer}.fc1", f"{block}.feedforward.up"),
            *both(f"{layer}.fc2", f"{block}.feedforward.down"),
            *both(f"{layer}.final_layer_norm", f"{block}.feedforward_norm.{norms}"),
            *both(f"{stack}.layer_norm", f"{stack}.norm"),
            IgnoredTensor(f"{stack}.version", "a number that fairseq counted its formats by"),
        ]
    return tuple(rows)


def _attention(theirs: str, ours: str) -> tuple[Row, ...]:
    names = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "out_proj": "o_proj"}
    return tuple(row for one, other in names.items() for row in both(f"{theirs}.{one}", f"{ours}.{other}"))


UNUSED = When(_apart, Copy("shared.weight", of=TABLES[0], used=False))
"""The table that nothing reads where each stack has its own."""

PAIR_HEADS: tuple[Row, ...] = (
    Same("lm_head.weight", "head.weight"),
    When(_shared, Copy("lm_head.weight", of="shared.weight")),
    When(_apart, Copy("lm_head.weight", of=TABLES[1])),
    Leading("final_logits_bias", "head.bias"),
    with_head(
        SequenceClassification,
        *both("classification_head.dense", "head.dense"),
        *both("classification_head.out_proj", "head.classify"),
    ),
)


def sinusoid_tables(*, written: bool) -> tuple[Fixed, ...]:
    """The rows of the tables of sinusoids, which the layout of the halves tells."""

    def shape(config: ModelConfig) -> tuple[int, int]:
        return config.context, config.d_model

    def make(config: ModelConfig) -> Tensor:
        assert config.decoder is not None and isinstance(config.decoder.position, Sinusoidal)
        if config.context * config.d_model > LARGEST_TABLE:
            raise CheckpointError(
                f"a table of {config.context:,} sinusoids is too large to be written; shorten context."
            )
        table: Tensor = sinusoids(torch.arange(config.context)[None], config.d_model, config.decoder.position)[0]
        return table

    return tuple(Fixed(f"{stack}.embed_positions.weight", shape, make, written) for stack in STACKS)
