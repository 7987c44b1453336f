"""What BERT and the encoders after it share: the keys of their configs, their classes, the names of their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from clearhead.checkpoint.common import ACTIVATIONS, layers, one_stack
from clearhead.checkpoint.config_rules import ConfigRow, Convert, Foreign, Only, Value, choice, number, whole
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.rules import Copy, IgnoredTensor, Row, Same, When, both, with_head
from clearhead.model.config import (
    Activation,
    MaskedLanguageModel,
    ModelConfig,
    SequenceClassification,
    TokenClassification,
)

BLOCK = "encoder.blocks.{layer}"
"""Our name of an encoder's block."""
LAYER = "encoder.layer.{layer}"
"""What BERT, RoBERTa and ELECTRA call it."""
TABLE = "embeddings.word_embeddings.weight"
"""The embedding, to which the masked-LM head is tied."""
BY_POOLER = SequenceClassification(labels=UNNAMED, pooling="pooler")
"""How BERT and ALBERT label a text."""


def encoder_sizes(
    *,
    vocab_size: int,
    d_model: int = 768,
    n_heads: int = 12,
    d_ff: int = 3072,
    activation: str = "gelu",
    dropout: float = 0.1,
    head_bends: bool = True,
) -> tuple[ConfigRow, ...]:
    """The rows that they spell alike, with the family's defaults. head_bends: the masked-LM head has `hidden_act`."""
    bends = ("encoder.feedforward.activation", *(("head.activation?",) if head_bends else ()))
    return (
        whole("vocab_size", "vocab_size", default=vocab_size),
        whole("hidden_size", "d_model", default=d_model),
        Value(("type_vocab_size",), ("embedding.token_types",), _token_types),
        layers("num_hidden_layers", 12, "encoder"),
        whole("num_attention_heads", "encoder.attention.n_heads", default=n_heads),
        whole("intermediate_size", "encoder.feedforward.d_ff", default=d_ff),
        choice("hidden_act", ACTIVATIONS, *bends, default=activation),
        number("layer_norm_eps", "encoder.norm.eps", "embedding.norm.eps", "head.norm.eps?", default=1e-12),
        number("hidden_dropout_prob", "encoder.dropout", "embedding.dropout", default=dropout),
        number("attention_probs_dropout_prob", "encoder.attention.dropout", default=dropout),
        number("initializer_range", "init.std", default=0.02),
        Only("position_embedding_type", ("absolute", None), "relative positions inside BERT's scores are not had"),
        *one_stack(decoder=False),
    )


def _token_types(foreign: Foreign, key: str) -> int:
    count = foreign.whole(key, 2)
    if count < 1:
        raise foreign.bad(key, "a count of token types, at least 1")
    return count


def table_width(default: int) -> Convert:
    """The row of an embedding that may be narrower than the model."""
    return Convert(
        ("embedding_size",),
        lambda foreign: {"embedding.width": foreign.whole("embedding_size", default)},
        lambda config: {"embedding_size": config.embedding.width or config.d_model},
    )


NOTHING_MORE: Mapping[str, Architecture] = MappingProxyType({})


def encoder_classes(
    name: str,
    *,
    sequence: SequenceClassification,
    output: str,
    pooler: str | None = None,
    pretraining: bool = False,
    also: Mapping[str, Architecture] = NOTHING_MORE,
    dropout_keys: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob"),
) -> Heads:
    """The row of an encoder's classes. sequence: how it labels a text. output: the masked-LM head's own table.

    pooler: the tensor that shows that a base model has one. pretraining: it is read as a masked LM, without its second
    head. also: classes that only this family has.
    """
    reads: Activation | None = "tanh" if sequence.pooling == "pooler" else None
    masked = Architecture(head=MaskedLanguageModel())
    return Heads(
        architectures={
            f"{name}Model": Architecture(pooler="tanh" if pooler is not None else None, pooler_weight=pooler),
            f"{name}ForMaskedLM": masked,
            **({f"{name}ForPreTraining": masked} if pretraining else {}),
            f"{name}ForSequenceClassification": Architecture(head=sequence, pooler=reads),
            f"{name}ForTokenClassification": Architecture(head=TokenClassification(labels=UNNAMED)),
            **also,
        },
        default=f"{name}Model",
        tied=True,
        output=output,
        table=TABLE,
        dropout_keys=dropout_keys,
    )


def _untied(config: ModelConfig) -> bool:
    return isinstance(config.head, MaskedLanguageModel) and not config.head.tied


EMBEDDING: tuple[Row, ...] = (
    Same(TABLE, "encoder.embedding.tokens.weight"),
    Same("embeddings.position_embeddings.weight", "encoder.embedding.positions.weight"),
    Same("embeddings.token_type_embeddings.weight", "encoder.embedding.types.weight"),
    *both("embeddings.LayerNorm", "encoder.embedding.norm"),
    IgnoredTensor("embeddings.position_ids", "the numbers 0, 1, 2 …, counted here"),
    IgnoredTensor("embeddings.token_type_ids", "zeros"),
)
"""The tensors of the embedding, which all of them name alike."""

BLOCKS: tuple[Row, ...] = (
    *both(f"{LAYER}.attention.self.query", f"{BLOCK}.attention.q_proj"),
    *both(f"{LAYER}.attention.self.key", f"{BLOCK}.attention.k_proj"),
    *both(f"{LAYER}.attention.self.value", f"{BLOCK}.attention.v_proj"),
    *both(f"{LAYER}.attention.output.dense", f"{BLOCK}.attention.o_proj"),
    *both(f"{LAYER}.attention.output.LayerNorm", f"{BLOCK}.attention_norm.after"),
    *both(f"{LAYER}.intermediate.dense", f"{BLOCK}.feedforward.up"),
    *both(f"{LAYER}.output.dense", f"{BLOCK}.feedforward.down"),
    *both(f"{LAYER}.output.LayerNorm", f"{BLOCK}.feedforward_norm.after"),
)
"""The tensors of the blocks of BERT, RoBERTa and ELECTRA."""


def pooler(theirs: str) -> tuple[Row, ...]:
    """The pooler, and what becomes of one that the model's class does not build."""
    unread = IgnoredTensor(f"{theirs}.*", "the pooler, which this class does not read")
    return (*both(theirs, "pooler.dense"), When(lambda config: config.pooler is None, unread))


def masked_head(dense: str, norm: str, *rows: Row) -> When:
    """The masked-LM head's own layer."""
    return with_head(MaskedLanguageModel, *both(dense, "head.dense"), *both(norm, "head.norm"), *rows)


def tied_decoder(theirs: str) -> tuple[Row, ...]:
    """The masked-LM head's `decoder`: tied to the embedding, its bias to the head's `bias`; or both its own, and then
    nothing reads `bias`."""
    weight, bias, outer = f"{theirs}.decoder.weight", f"{theirs}.decoder.bias", f"{theirs}.bias"
    return (
        When(_untied, Same(weight, "head.weight"), Same(bias, "head.bias"), Copy(outer, of=bias, used=False)),
        When(
            lambda config: not _untied(config),
            with_head(MaskedLanguageModel, Same(outer, "head.bias")),
            Copy(weight, of=TABLE),
            Copy(bias, of=outer),
        ),
    )


QUESTIONS = IgnoredTensor("qa_outputs.*", "the head that answers questions, which is not read")
"""A head that a checkpoint may have beside those that we read; its base model can be loaded by head=."""
