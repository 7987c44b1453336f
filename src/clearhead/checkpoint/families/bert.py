"""BERT (Devlin et al. 2019): an encoder that normalises after each branch, with token types and, mostly, a pooler."""

from __future__ import annotations

from clearhead.checkpoint.common import ACTIVATIONS, layers, one_stack, special_tokens
from clearhead.checkpoint.config_rules import Ignored, Only, choice, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.rules import Copy, Same, When, both, with_head
from clearhead.checkpoint.rules import Ignored as IgnoredTensor
from clearhead.model import presets
from clearhead.model.config import (
    MaskedLanguageModel,
    ModelConfig,
    SequenceClassification,
    TokenClassification,
)

BLOCK = "encoder.blocks.{layer}"
LAYER = "encoder.layer.{layer}"


def _untied(config: ModelConfig) -> bool:
    return isinstance(config.head, MaskedLanguageModel) and not config.head.tied


def _no_pooler(config: ModelConfig) -> bool:
    return config.pooler is None


BERT = Family(
    model_type="bert",
    template=presets.bert(),
    prefix="bert.",
    old_names={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    config=(
        whole("vocab_size", "vocab_size", default=30_522),
        whole("hidden_size", "d_model", default=768),
        whole("max_position_embeddings", "context", default=512),
        whole("type_vocab_size", "embedding.token_types", default=2),
        layers("num_hidden_layers", 12, "encoder"),
        whole("num_attention_heads", "encoder.attention.n_heads", default=12),
        whole("intermediate_size", "encoder.feedforward.d_ff", default=3072),
        choice("hidden_act", ACTIVATIONS, "encoder.feedforward.activation", "head.activation?", default="gelu"),
        number("layer_norm_eps", "encoder.norm.eps", "embedding.norm.eps", "head.norm.eps?", default=1e-12),
        number("hidden_dropout_prob", "encoder.dropout", "embedding.dropout", default=0.1),
        number("attention_probs_dropout_prob", "encoder.attention.dropout", default=0.1),
        number("initializer_range", "init.std", default=0.02),
        *special_tokens(pad=0),
        *one_stack(decoder=False),
        Heads(
            architectures={
                "BertModel": Architecture(pooler="tanh", pooler_weight="pooler.dense.weight"),
                "BertForMaskedLM": Architecture(head=MaskedLanguageModel()),
                "BertForPreTraining": Architecture(head=MaskedLanguageModel()),
                "BertForSequenceClassification": Architecture(
                    head=SequenceClassification(labels=UNNAMED, pooling="pooler"), pooler="tanh"
                ),
                "BertForTokenClassification": Architecture(head=TokenClassification(labels=UNNAMED)),
            },
            default="BertModel",
            tied=True,
            output="cls.predictions.decoder.weight",
            table="embeddings.word_embeddings.weight",
            dropout_keys=("classifier_dropout", "hidden_dropout_prob"),
        ),
        Only("position_embedding_type", ("absolute", None), "relative positions inside BERT's scores are not had"),
        Ignored("pooler_*", "it speaks of a pooler that no published class builds"),
        Ignored("directionality", "both ways, as every BERT reads"),
    ),
    weights=(
        Same("embeddings.word_embeddings.weight", "encoder.embedding.tokens.weight"),
        Same("embeddings.position_embeddings.weight", "encoder.embedding.positions.weight"),
        Same("embeddings.token_type_embeddings.weight", "encoder.embedding.types.weight"),
        *both("embeddings.LayerNorm", "encoder.embedding.norm"),
        *both(f"{LAYER}.attention.self.query", f"{BLOCK}.attention.q_proj"),
        *both(f"{LAYER}.attention.self.key", f"{BLOCK}.attention.k_proj"),
        *both(f"{LAYER}.attention.self.value", f"{BLOCK}.attention.v_proj"),
        *both(f"{LAYER}.attention.output.dense", f"{BLOCK}.attention.o_proj"),
        *both(f"{LAYER}.attention.output.LayerNorm", f"{BLOCK}.attention_norm.after"),
        *both(f"{LAYER}.intermediate.dense", f"{BLOCK}.feedforward.up"),
        *both(f"{LAYER}.output.dense", f"{BLOCK}.feedforward.down"),
        *both(f"{LAYER}.output.LayerNorm", f"{BLOCK}.feedforward_norm.after"),
        *both("pooler.dense", "pooler.dense"),
        When(_no_pooler, IgnoredTensor("pooler.dense.*", "the pooler, which feeds only the next-sentence head")),
        IgnoredTensor("embeddings.position_ids", "the numbers 0, 1, 2 …, counted here"),
        IgnoredTensor("embeddings.token_type_ids", "zeros"),
    ),
    heads=(
        with_head(
            MaskedLanguageModel,
            *both("cls.predictions.transform.dense", "head.dense"),
            *both("cls.predictions.transform.LayerNorm", "head.norm"),
            IgnoredTensor("cls.seq_relationship.*", "the next-sentence head, which is not read"),
        ),
        When(
            _untied,
            Same("cls.predictions.decoder.weight", "head.weight"),
            Same("cls.predictions.decoder.bias", "head.bias"),
            Copy("cls.predictions.bias", of="cls.predictions.decoder.bias", used=False),
        ),
        When(
            lambda config: not _untied(config),
            with_head(MaskedLanguageModel, Same("cls.predictions.bias", "head.bias")),
            Copy("cls.predictions.decoder.weight", of="embeddings.word_embeddings.weight"),
            Copy("cls.predictions.decoder.bias", of="cls.predictions.bias"),
        ),
        with_head(SequenceClassification, *both("classifier", "head.classify")),
        with_head(TokenClassification, *both("classifier", "head.classify")),
    ),
)

FAMILIES = (BERT,)
