"""Published configs, in their own old keys, give the parameters that their makers count. Nothing is allocated."""

from __future__ import annotations

from typing import Any

import pytest

from clearhead.checkpoint import families
from clearhead.model import skeleton


class NoWeights:
    """A checkpoint that is its config alone."""

    def has(self, name: str) -> bool:
        return False

    def same(self, one: str, other: str) -> bool:
        return False


PYTHIA = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 6}
OPT_350M = {"hidden_size": 1024, "ffn_dim": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
BLOOM = {
    **{"n_embed": 1024, "n_layer": 24, "num_attention_heads": 16, "seq_length": 2048, "vocab_size": 250_880},
    **{"n_inner": None, "offset_alibi": 100, "skip_bias_add": True, "skip_bias_add_qkv": False, "pretraining_tp": 1},
    **{"attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "masked_softmax_fusion": True},
}
MPT = {
    **{"d_model": 4096, "n_heads": 32, "n_layers": 32, "expansion_ratio": 4, "max_seq_len": 2048, "no_bias": True},
    **{"vocab_size": 50_432, "learned_pos_emb": True, "norm_type": "low_precision_layernorm", "logit_scale": None},
    **{"init_device": "cpu", "embedding_fraction": 1.0, "emb_pdrop": 0, "verbose": 0, "use_cache": False},
    "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_type": "multihead_attention", "clip_qkv": None},
}
STABLELM = {"rope_theta": 10_000, "partial_rotary_factor": 0.25, "num_key_value_heads": 32, "use_qkv_bias": False}


@pytest.mark.parametrize(
    ("family", "keys", "parameters"),
    [
        pytest.param(
            "gpt_neox",
            {**PYTHIA, "rotary_pct": 0.25, "rotary_emb_base": 10_000, "vocab_size": 50_304},
            70_426_624,
            id="Pythia 70m",
        ),
        pytest.param("opt", {"activation_dropout": 0.0, "word_embed_proj_dim": 768}, 125_239_296, id="OPT 125m"),
        pytest.param(
            "opt",
            {**OPT_350M, "do_layer_norm_before": False, "word_embed_proj_dim": 512},
            331_196_416,
            id="OPT 350m, its table half as wide",
        ),
        pytest.param(
            "falcon",
            {"apply_residual_connection_post_layernorm": False, "multi_query": True, "num_kv_heads": 71},
            6_921_720_704,
            id="Falcon 7B",
        ),
        pytest.param("stablelm", STABLELM, 2_795_443_200, id="StableLM 3B 4E1T"),
        pytest.param("bloom", BLOOM, 559_214_592, id="BLOOM 560m"),
        pytest.param("mpt", MPT, 6_649_286_656, id="MPT 7B"),
        pytest.param("t5", {"output_past": True, "n_positions": 512}, 60_506_624, id="T5 small"),
    ],
)
def test_the_parameters_are_counted_to_the_last(family: str, keys: dict[str, Any], parameters: int) -> None:
    config, accounts, _, errors = families.family(family, "test").read({"model_type": family, **keys}, NoWeights())
    assert not errors and config is not None
    assert {account.name for account in accounts} == {"model_type", *keys}
    assert skeleton(config).n_parameters() == parameters
