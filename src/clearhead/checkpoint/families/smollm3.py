"""SmolLM 3 (2025): Llama whose every fourth layer does not turn q and k. (SmolLM 1 and 2 are Llama itself.)"""

from __future__ import annotations

from typing import Any

from clearhead.checkpoint.common import (
    ATTENTION_BIASES,
    LLAMA_HEADS,
    LLAMA_WEIGHTS,
    decoder_classes,
    decoder_sizes,
    grouped_heads,
    special_tokens,
)
from clearhead.checkpoint.config_rules import Convert, Foreign, Ignored, flag
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import Places, get
from clearhead.checkpoint.rotary import Rope
from clearhead.checkpoint.windows import switched_windows
from clearhead.model import presets
from clearhead.model.config import ModelConfig, NoPosition

LAYERS = 36


def _turned(foreign: Foreign) -> tuple[bool, ...]:
    """Which layers turn q and k: by a list of 1 and 0, else all but every so many."""
    count = foreign.whole("num_hidden_layers", LAYERS, at_most=4096)
    flags = foreign.get("no_rope_layers")
    if flags is None:
        interval = foreign.whole("no_rope_layer_interval", 4)
        if interval < 1:
            raise foreign.bad("no_rope_layer_interval", "a number of layers")
        return tuple((layer + 1) % interval != 0 for layer in range(count))
    if not isinstance(flags, list) or len(flags) < count or any(one not in (0, 1) for one in flags):
        raise foreign.bad("no_rope_layers", f"a list of 1 or 0 for each of {count} layers")
    return tuple(bool(one) for one in flags[:count])


def _read(foreign: Foreign) -> Places:
    return {"decoder.attention[].rotary": tuple(None if turned else NoPosition() for turned in _turned(foreign))}


def _write(config: ModelConfig) -> dict[str, Any]:
    if config.decoder is None:
        return {}
    turned = [int(rotary is None) for rotary in get(config, "decoder.attention[].rotary")]
    first = turned.index(0) + 1 if 0 in turned else len(turned) + 1
    regular = turned == [int((layer + 1) % first != 0) for layer in range(len(turned))]
    return {"no_rope_layers": turned, **({"no_rope_layer_interval": first} if regular else {})}


SMOLLM3 = Family(
    model_type="smollm3",
    template=presets.llama(),
    prefix="model.",
    config=(
        *decoder_sizes(vocab_size=128_256, d_model=2048, context=32_768, n_layers=LAYERS, d_ff=11_008),
        grouped_heads("decoder.attention", default=16, kv_heads=4),
        Rope("decoder.position", theta=2_000_000.0),
        Convert(("no_rope_layers", "no_rope_layer_interval"), _read, _write),
        switched_windows(n_layers=LAYERS, window=None, local=lambda foreign, layer: not _turned(foreign)[layer]),
        flag("attention_bias", *ATTENTION_BIASES, default=False),
        flag("mlp_bias", "decoder.feedforward.bias", default=False),
        *special_tokens(pad=128_004, bos=128_000, eos=128_001),
        decoder_classes("SmolLM3", tied=True),
        Ignored("max_window_layers", "layer_types, or no_rope_layers, say which layers have a window"),
        Ignored("pretraining_tp", "it cuts the matrices into pieces, and the products are the same"),
    ),
    weights=LLAMA_WEIGHTS,
    heads=LLAMA_HEADS,
)

FAMILIES = (SMOLLM3,)
