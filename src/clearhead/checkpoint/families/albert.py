"""ALBERT (Lan et al. 2020): BERT with one block for all layers, and a narrow embedding that is projected."""

from __future__ import annotations

from dataclasses import replace

from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.config_rules import Ignored, Only, whole
from clearhead.checkpoint.encoders import (
    BLOCK,
    BY_POOLER,
    EMBEDDING,
    QUESTIONS,
    encoder_classes,
    encoder_sizes,
    masked_head,
    pooler,
    table_width,
    tied_decoder,
)
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.rules import IgnoredTensor, both, with_head
from clearhead.model import presets
from clearhead.model.config import SequenceClassification, StackConfig, TokenClassification

LAYER = "encoder.albert_layer_groups.{layer}.albert_layers.0"
BERT = presets.bert()
assert isinstance(BERT.encoder, StackConfig)

UNREAD = "a setting of the first release that no model reads"

ALBERT = Family(
    model_type="albert",
    template=replace(
        BERT, encoder=replace(BERT.encoder, share_layers=True), embedding=replace(BERT.embedding, project=True)
    ),
    prefix="albert.",
    config=(
        *encoder_sizes(vocab_size=30_000, d_model=4096, n_heads=64, d_ff=16_384, activation="gelu_new", dropout=0.0),
        table_width(128),
        whole("max_position_embeddings", "context", default=512),
        whole("num_hidden_groups", "encoder.layer_groups", default=1),
        Only("inner_group_num", (1,), "no published ALBERT has several blocks in a group"),
        *special_tokens(pad=0, bos=2, eos=3),
        encoder_classes(
            "Albert",
            sequence=BY_POOLER,
            output="predictions.decoder.weight",
            pooler="pooler.weight",
            pretraining=True,
            dropout_keys=("classifier_dropout_prob", "hidden_dropout_prob"),
        ),
        *(Ignored(key, UNREAD) for key in ("down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks")),
        Only("layers_to_keep", ([], None), "every layer is run"),
    ),
    weights=(
        *EMBEDDING,
        *both("encoder.embedding_hidden_mapping_in", "encoder.embedding.project"),
        *both(f"{LAYER}.attention.query", f"{BLOCK}.attention.q_proj"),
        *both(f"{LAYER}.attention.key", f"{BLOCK}.attention.k_proj"),
        *both(f"{LAYER}.attention.value", f"{BLOCK}.attention.v_proj"),
        *both(f"{LAYER}.attention.dense", f"{BLOCK}.attention.o_proj"),
        *both(f"{LAYER}.attention.LayerNorm", f"{BLOCK}.attention_norm.after"),
        *both(f"{LAYER}.ffn", f"{BLOCK}.feedforward.up"),
        *both(f"{LAYER}.ffn_output", f"{BLOCK}.feedforward.down"),
        *both(f"{LAYER}.full_layer_layer_norm", f"{BLOCK}.feedforward_norm.after"),
        *pooler("pooler"),
    ),
    heads=(
        masked_head(
            "predictions.dense",
            "predictions.LayerNorm",
            IgnoredTensor("sop_classifier.*", "the sentence-order head, which is not read"),
        ),
        *tied_decoder("predictions"),
        with_head(SequenceClassification, *both("classifier", "head.classify")),
        with_head(TokenClassification, *both("classifier", "head.classify")),
        QUESTIONS,
    ),
)

FAMILIES = (ALBERT,)
