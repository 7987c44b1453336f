"""Phi-3 (2024), and Phi-4: Llama with q, k and v in one matrix, gate and up in another, and LongRoPE."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from clearhead.checkpoint.common import (
    BLOCK,
    LAYER,
    LLAMA_HEADS,
    decoder_classes,
    decoder_sizes,
    grouped_heads,
    rotary_buffers,
    special_tokens,
)
from clearhead.checkpoint.config_rules import Foreign, Only, number, optional_whole, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import Places, get
from clearhead.checkpoint.rotary import ORIGINAL, Rope
from clearhead.checkpoint.rules import Same, Split
from clearhead.errors import UnknownKeyError
from clearhead.model import presets
from clearhead.model.config import LongRopeScaling, ModelConfig

NO_BIAS = "Phi-3 has no biases, and transformers makes none whatever the key says"
ONLY_ALL = "every layer attends alike; no published file says otherwise"


@dataclass(frozen=True)
class _Phi3Rope(Rope):
    """Rotary positions whose original context stands outside, and rules, as in transformers.

    Its scaling was called "su" or "yarn" once. Version 4 takes a `rope_scaling` of exactly three keys.
    """

    def read(self, foreign: Foreign) -> Places:
        keys: dict[str, Any] = {**foreign.keys, ORIGINAL: foreign.whole(ORIGINAL, 4096)}
        for name in ("rope_parameters", "rope_scaling"):
            says = self._object(foreign, name)
            kinds = {key: "longrope" for key in ("type", "rope_type") if says.get(key) in ("su", "yarn")}
            keys[name] = {key: value for key, value in says.items() if key != ORIGINAL} | kinds
        places = super().read(replace(foreign, keys=keys))
        scaling = places[self.place].scaling
        if scaling is not None and not isinstance(scaling, LongRopeScaling):
            raise UnknownKeyError(f"{foreign.where}: Phi-3 scales its positions by longrope alone; remove the other.")
        return places

    def write(self, config: ModelConfig) -> dict[str, Any]:
        says = super().write(config)
        scaling = get(config, f"{self.place}.scaling")
        if isinstance(scaling, LongRopeScaling):
            derived = scaling.factor == config.context / scaling.original_context and scaling.attention_factor is None
            if derived:
                older = says["rope_scaling"]
                says["rope_scaling"] = {key: older[key] for key in ("type", "short_factor", "long_factor")}
        return says


PHI3 = Family(
    model_type="phi3",
    template=presets.llama(),
    prefix="model.",
    config=(
        *decoder_sizes(vocab_size=32_064, d_model=3072, context=4096, n_layers=32, d_ff=8192, eps=1e-5),
        grouped_heads("decoder.attention", default=32),
        _Phi3Rope("decoder.position", fraction=1.0, kind="type"),
        whole(ORIGINAL, "decoder.position.scaling.original_context?", default=4096),
        optional_whole("sliding_window", "decoder.attention.window"),
        number("resid_pdrop", "decoder.dropout", default=0.0),
        number("embd_pdrop", "embedding.dropout", default=0.0),
        *special_tokens(pad=32_000, bos=1, eos=32_000),
        decoder_classes("Phi3", tied=False),
        *(Only(key, (False,), NO_BIAS) for key in ("attention_bias", "mlp_bias", "lm_head_bias")),
        *(Only(key, (1,), ONLY_ALL) for key in ("full_attn_mod", "interpolate_factor")),
    ),
    weights=(
        Same("embed_tokens.weight", "decoder.embedding.tokens.weight"),
        Same(f"{LAYER}.input_layernorm.weight", f"{BLOCK}.attention_norm.before.weight"),
        Split(f"{LAYER}.self_attn.qkv_proj.weight", tuple(f"{BLOCK}.attention.{one}_proj.weight" for one in "qkv")),
        Same(f"{LAYER}.self_attn.o_proj.weight", f"{BLOCK}.attention.o_proj.weight"),
        Same(f"{LAYER}.post_attention_layernorm.weight", f"{BLOCK}.feedforward_norm.before.weight"),
        Split(
            f"{LAYER}.mlp.gate_up_proj.weight", (f"{BLOCK}.feedforward.gate.weight", f"{BLOCK}.feedforward.up.weight")
        ),
        Same(f"{LAYER}.mlp.down_proj.weight", f"{BLOCK}.feedforward.down.weight"),
        Same("norm.weight", "decoder.norm.weight"),
        *rotary_buffers(),
    ),
    heads=LLAMA_HEADS,
)

FAMILIES = (PHI3,)
