"""Marian."""

from __future__ import annotations

from hypothesis import strategies as st
from transformers import MarianConfig, MarianModel, MarianMTModel

from tests.parity.grids import Grid
from tests.parity.grids.bart import SMALL, by_column, flags


@st.composite
def configs(draw: st.DrawFn) -> MarianConfig:
    keys = draw(flags())
    # One table that is not tied to the head is read too, but comes apart in transformers 5: see test_marian.py.
    share = draw(st.booleans()) and keys["tie_word_embeddings"]
    size = None if share else draw(st.sampled_from([None, 11, 50]))
    return MarianConfig(share_encoder_decoder_embeddings=share, decoder_vocab_size=size, **keys)


GRIDS = (
    Grid(
        family="marian",
        configs=configs(),
        classes={"seq2seq": MarianMTModel, "base": MarianModel},
        small=lambda: MarianConfig(**SMALL),
        alone=by_column,
        older=lambda config: config.share_encoder_decoder_embeddings or config.decoder_vocab_size == config.vocab_size,
    ),
)
