"""ELECTRA (Clark et al. 2020): BERT whose small sizes have a narrow embedding.

The generator is a masked language model. The discriminator, which tells its words from the text's, is read as the base
model, to be looked at or fine-tuned: none of our heads is its own.
"""

from __future__ import annotations

from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.config_rules import Ignored, whole
from clearhead.checkpoint.encoders import (
    BLOCKS,
    EMBEDDING,
    QUESTIONS,
    TABLE,
    encoder_classes,
    encoder_sizes,
    masked_head,
    table_width,
)
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture
from clearhead.checkpoint.rules import Copy, IgnoredTensor, both, with_head
from clearhead.model import presets
from clearhead.model.config import SequenceClassification, TokenClassification

ELECTRA = Family(
    model_type="electra",
    template=presets.bert(),
    prefix="electra.",
    config=(
        *encoder_sizes(vocab_size=30_522, d_model=256, n_heads=4, d_ff=1024, head_bends=False),
        table_width(128),
        whole("max_position_embeddings", "context", default=512),
        *special_tokens(pad=0),
        encoder_classes(
            "Electra",
            sequence=SequenceClassification(labels=UNNAMED, pooling="first", hidden="gelu"),
            output="generator_lm_head.weight",
            also={"ElectraForPreTraining": Architecture()},
        ),
        Ignored("summary_*", "it speaks of the multiple-choice head, which is not read"),
    ),
    weights=(*EMBEDDING, *both("embeddings_project", "encoder.embedding.project"), *BLOCKS),
    heads=(
        masked_head(
            "generator_predictions.dense", "generator_predictions.LayerNorm", *both("generator_lm_head", "head")
        ),
        Copy("generator_lm_head.weight", of=TABLE),
        with_head(
            SequenceClassification,
            *both("classifier.dense", "head.dense"),
            *both("classifier.out_proj", "head.classify"),
        ),
        with_head(TokenClassification, *both("classifier", "head.classify")),
        IgnoredTensor("discriminator_predictions.*", "the head that tells replaced tokens, which is not read"),
        QUESTIONS,
    ),
)

FAMILIES = (ELECTRA,)
