"""BERT (Devlin et al. 2019): an encoder that normalises after each branch, with token types and, mostly, a pooler."""

from __future__ import annotations

from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.config_rules import Ignored, whole
from clearhead.checkpoint.encoders import (
    BLOCKS,
    BY_POOLER,
    EMBEDDING,
    QUESTIONS,
    encoder_classes,
    encoder_sizes,
    masked_head,
    pooler,
    tied_decoder,
)
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.rules import IgnoredTensor, both, with_head
from clearhead.model import presets
from clearhead.model.config import SequenceClassification, TokenClassification

HEAD = "cls.predictions"

BERT = Family(
    model_type="bert",
    template=presets.bert(),
    prefix="bert.",
    old_names={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    config=(
        *encoder_sizes(vocab_size=30_522),
        whole("max_position_embeddings", "context", default=512),
        *special_tokens(pad=0),
        encoder_classes(
            "Bert",
            sequence=BY_POOLER,
            output=f"{HEAD}.decoder.weight",
            pooler="pooler.dense.weight",
            pretraining=True,
        ),
        Ignored("pooler_*", "it speaks of a pooler that no published class builds"),
        Ignored("directionality", "both ways, as every BERT reads"),
    ),
    weights=(*EMBEDDING, *BLOCKS, *pooler("pooler.dense")),
    heads=(
        masked_head(
            f"{HEAD}.transform.dense",
            f"{HEAD}.transform.LayerNorm",
            IgnoredTensor("cls.seq_relationship.*", "the next-sentence head, which is not read"),
        ),
        *tied_decoder(HEAD),
        with_head(SequenceClassification, *both("classifier", "head.classify")),
        with_head(TokenClassification, *both("classifier", "head.classify")),
        QUESTIONS,
    ),
)

FAMILIES = (BERT,)
