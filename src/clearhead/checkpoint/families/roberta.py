"""RoBERTa (Liu et al. 2019): BERT with positions that begin after the padding id; XLM-RoBERTa and CamemBERT are it too.

Row `pad` of the position table stands for padding, the rows before it for nothing, and the first token has row pad + 1.
"""

from __future__ import annotations

from typing import Any

from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.config_rules import Convert, Foreign
from clearhead.checkpoint.encoders import (
    BLOCKS,
    EMBEDDING,
    QUESTIONS,
    encoder_classes,
    encoder_sizes,
    masked_head,
    pooler,
    tied_decoder,
)
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.heads_rule import UNNAMED
from clearhead.checkpoint.places import Places, get
from clearhead.checkpoint.rules import both, with_head
from clearhead.errors import CheckpointError
from clearhead.model import presets
from clearhead.model.config import ModelConfig, SequenceClassification, TokenClassification

OFFSET = "encoder.position.offset"


def _read_positions(foreign: Foreign) -> Places:
    pad = foreign.whole("pad_token_id", 1)
    rows = foreign.whole("max_position_embeddings", 512)
    if not 0 <= pad < rows - 1:
        raise foreign.bad("pad_token_id", f"a row of the {rows} positions that leaves one for a token")
    return {"context": rows - pad - 1, OFFSET: pad + 1}


def _write_positions(config: ModelConfig) -> dict[str, Any]:
    if config.tokens.pad is None or get(config, OFFSET) != config.tokens.pad + 1:
        raise CheckpointError(
            "positions begin at the row after the padding id's; choose Learned(offset=pad + 1) and name tokens.pad."
        )
    return {"max_position_embeddings": config.context + config.tokens.pad + 1}


def _family(model_type: str, name: str, vocab_size: int) -> Family:
    return Family(
        model_type=model_type,
        template=presets.bert(),
        prefix="roberta.",
        config=(
            *encoder_sizes(vocab_size=vocab_size, head_bends=False),
            Convert(("max_position_embeddings",), _read_positions, _write_positions),
            *special_tokens(pad=1, bos=0, eos=2),
            encoder_classes(
                name,
                sequence=SequenceClassification(labels=UNNAMED, pooling="first", hidden="tanh"),
                output="lm_head.decoder.weight",
                pooler="pooler.dense.weight",
            ),
        ),
        weights=(*EMBEDDING, *BLOCKS, *pooler("pooler.dense")),
        heads=(
            masked_head("lm_head.dense", "lm_head.layer_norm"),
            *tied_decoder("lm_head"),
            with_head(
                SequenceClassification,
                *both("classifier.dense", "head.dense"),
                *both("classifier.out_proj", "head.classify"),
            ),
            with_head(TokenClassification, *both("classifier", "head.classify")),
            QUESTIONS,
        ),
    )


FAMILIES = (
    _family("roberta", "Roberta", 50_265),
    _family("xlm-roberta", "XLMRoberta", 30_522),
    _family("camembert", "Camembert", 30_522),
)
