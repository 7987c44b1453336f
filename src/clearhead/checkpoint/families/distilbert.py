"""DistilBERT (Sanh et al. 2019): BERT at half its depth, without token types and pooler, under names of its own."""

from __future__ import annotations

from dataclasses import replace

from clearhead.checkpoint.common import ACTIVATIONS, layers, one_stack, special_tokens
from clearhead.checkpoint.config_rules import Ignored, choice, number, whole
from clearhead.checkpoint.encoders import BLOCK, EMBEDDING, QUESTIONS, TABLE, masked_head
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.rules import Copy, both, with_head
from clearhead.model import presets
from clearhead.model.config import MaskedLanguageModel, SequenceClassification, TokenClassification

LAYER = "transformer.layer.{layer}"
BERT = presets.bert()

DISTILBERT = Family(
    model_type="distilbert",
    template=replace(BERT, embedding=replace(BERT.embedding, token_types=0), pooler=None),
    prefix="distilbert.",
    config=(
        whole("vocab_size", "vocab_size", default=30_522),
        whole("dim", "d_model", default=768),
        whole("max_position_embeddings", "context", default=512),
        layers("n_layers", 6, "encoder"),
        whole("n_heads", "encoder.attention.n_heads", default=12),
        whole("hidden_dim", "encoder.feedforward.d_ff", default=3072),
        choice("activation", ACTIVATIONS, "encoder.feedforward.activation", "head.activation?", default="gelu"),
        number("dropout", "encoder.dropout", "embedding.dropout", default=0.1),
        number("attention_dropout", "encoder.attention.dropout", default=0.1),
        number("initializer_range", "init.std", default=0.02),
        *special_tokens(pad=0),
        *one_stack(decoder=False),
        Heads(
            architectures={
                "DistilBertModel": Architecture(),
                "DistilBertForMaskedLM": Architecture(head=MaskedLanguageModel()),
                "DistilBertForSequenceClassification": Architecture(
                    head=SequenceClassification(labels=UNNAMED, pooling="first", hidden="relu")
                ),
                "DistilBertForTokenClassification": Architecture(
                    head=TokenClassification(labels=UNNAMED), own_dropout=("dropout", 0.1)
                ),
            },
            default="DistilBertModel",
            tied=True,
            output="vocab_projector.weight",
            table=TABLE,
            dropout_keys=("seq_classif_dropout",),
            dropout=0.2,
        ),
        Ignored("sinusoidal_pos_embds", "it says how the table of positions began, and the table is in the file"),
        Ignored("qa_dropout", "it speaks of the head that answers questions, which is not read"),
        Ignored("tie_weights_", "no version reads it; tie_word_embeddings says it"),
    ),
    weights=(
        *EMBEDDING,
        *(row for name in "qkv" for row in both(f"{LAYER}.attention.{name}_lin", f"{BLOCK}.attention.{name}_proj")),
        *both(f"{LAYER}.attention.out_lin", f"{BLOCK}.attention.o_proj"),
        *both(f"{LAYER}.sa_layer_norm", f"{BLOCK}.attention_norm.after"),
        *both(f"{LAYER}.ffn.lin1", f"{BLOCK}.feedforward.up"),
        *both(f"{LAYER}.ffn.lin2", f"{BLOCK}.feedforward.down"),
        *both(f"{LAYER}.output_layer_norm", f"{BLOCK}.feedforward_norm.after"),
    ),
    heads=(
        masked_head("vocab_transform", "vocab_layer_norm", *both("vocab_projector", "head")),
        Copy("vocab_projector.weight", of=TABLE),
        with_head(SequenceClassification, *both("pre_classifier", "head.dense"), *both("classifier", "head.classify")),
        with_head(TokenClassification, *both("classifier", "head.classify")),
        QUESTIONS,
    ),
)

FAMILIES = (DISTILBERT,)
