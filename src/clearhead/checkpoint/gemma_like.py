"""What the Gemmas share: the keys and tensors that Llama's kin lack, and rotary positions by kind of layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clearhead.checkpoint.common import BLOCK, GLOBAL, LAYER, LOCAL, gated, local_layers, projections, rotary_buffers
from clearhead.checkpoint.config_rules import ConfigRow, Convert, Foreign, Ignored, Only
from clearhead.checkpoint.places import Places, fill, get
from clearhead.checkpoint.rotary import ORIGINAL, Rope
from clearhead.checkpoint.rules import Row, Same
from clearhead.errors import UnknownKeyError
from clearhead.model import presets
from clearhead.model.config import ModelConfig, RMSNorm, Rotary

TEMPLATE = fill(presets.llama(), {"decoder.norm": RMSNorm(plus_one=True)})
"""Llama's choices, with norms that multiply by 1 + w."""

ONE_WAY = Only("use_bidirectional_attention", (None, False), "transformers itself does it with some kernels only")
OTHER_ACTIVATION = Ignored("hidden_act", "hidden_activation is what is read since Gemma 2")


def embedding_scale(d_model: int) -> ConfigRow:
    """Embeddings grow by √d_model whatever the width: there is no key for it. d_model: the width where none is said."""
    return Convert((), lambda foreign: {"embedding.scale": foreign.whole("hidden_size", d_model) ** 0.5}, lambda _: {})


def query_scale() -> ConfigRow:
    """The scores' factor, 1/√ of a number that need not be the head's width."""

    def read(foreign: Foreign) -> Places:
        value = foreign.number("query_pre_attn_scalar", 256.0)
        if value <= 0:
            raise foreign.bad("query_pre_attn_scalar", "a number above 0")
        return {"decoder.attention.scale": value**-0.5}

    def write(config: ModelConfig) -> dict[str, Any]:
        if config.decoder is None:
            return {}
        attention = config.decoder.attention_of(0)
        width = attention.head_width(config.d_model)
        scale = width**-0.5 if attention.scale is None else max(attention.scale, 1e-100)
        return {"query_pre_attn_scalar": round(scale**-2)}

    return Convert(("query_pre_attn_scalar",), read, write)


WEIGHTS: tuple[Row, ...] = (
    Same("embed_tokens.weight", "decoder.embedding.tokens.weight"),
    Same(f"{LAYER}.input_layernorm.weight", f"{BLOCK}.attention_norm.before.weight"),
    *projections(),
    Same(f"{LAYER}.post_attention_layernorm.weight", f"{BLOCK}.attention_norm.after.weight"),
    Same(f"{LAYER}.pre_feedforward_layernorm.weight", f"{BLOCK}.feedforward_norm.before.weight"),
    *gated(),
    Same(f"{LAYER}.post_feedforward_layernorm.weight", f"{BLOCK}.feedforward_norm.after.weight"),
    Same("norm.weight", "decoder.norm.weight"),
    *rotary_buffers(),
)
"""The tensors since Gemma 2, whose branches are normed on both sides."""


def is_local(foreign: Foreign, layer: int) -> bool:
    """Gemma 3's rule: every sixth layer is global, or as often as older files say."""
    period = foreign.whole("sliding_window_pattern", 6)
    if period < 1:
        raise foreign.bad("sliding_window_pattern", "a number of layers")
    return (layer + 1) % period != 0


_WIDE = Rope("decoder.position", theta=1_000_000.0)
_NEAR = Rope("decoder.position", theta=10_000.0, old={"rope_theta": "rope_local_base_freq"})


@dataclass(frozen=True)
class RopeByKind(ConfigRow):
    """Global and local layers turn at rates of their own: `rope_parameters` has an entry for each kind of layer.

    transformers 4 had `rope_theta` and `rope_scaling` for the global ones, and for the local `rope_local_base_freq`.
    """

    n_layers: int
    keys: tuple[str, ...] = ("rope_parameters", "rope_theta", "rope_scaling", "rope_local_base_freq", ORIGINAL)
    verbatim: bool = False

    def read(self, foreign: Foreign) -> Places:
        """The global layers' as the stack's own, and the local ones' where it is another."""
        wide = _WIDE.read(self._told(foreign, GLOBAL, "rope_theta", "rope_scaling", ORIGINAL))
        near = _NEAR.read(self._told(foreign, LOCAL, "rope_local_base_freq"))
        own = near["decoder.position"] if near != wide else None
        kinds = local_layers(foreign, self.n_layers, lambda layer: is_local(foreign, layer))
        return {**wide, "decoder.attention[].rotary": tuple(own if local else None for local in kinds)}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """Both spellings. A scaling of the local layers is one that version 4 has no word for."""
        if config.decoder is None:
            return {}
        windows = get(config, "decoder.attention[].window")
        turns = (config.decoder.rotary(layer) for layer, window in enumerate(windows) if window is not None)
        local = next(turns, None) or Rotary(theta=_NEAR.theta)
        wide, near = _WIDE.write(config), _NEAR.write(fill(config, {"decoder.position": local}))
        kinds = {GLOBAL: wide.get("rope_parameters"), LOCAL: near["rope_parameters"]}
        return {**wide, "rope_parameters": kinds, "rope_local_base_freq": near["rope_local_base_freq"]}

    def _told(self, foreign: Foreign, kind: str, *older: str) -> Foreign:
        """What a file says of one kind of layer, as if of a whole model: its entry, and the older keys."""
        says = foreign.get("rope_parameters")
        if says is not None and (not isinstance(says, dict) or not set(says) <= {LOCAL, GLOBAL}):
            raise UnknownKeyError(f"{foreign.where}: rope_parameters is not an entry for {LOCAL} and one for {GLOBAL}.")
        keys = {key: value for key, value in foreign.keys.items() if key not in self.keys or key in older}
        keys["rope_parameters"] = (says or {}).get(kind)
        return replace(foreign, keys=keys, where=f"{foreign.where}: {kind}")


@dataclass(frozen=True)
class InEncoder(ConfigRow):
    """A decoder's row, for files whose one stack reads both ways: here that is an encoder, and all else is the same."""

    row: ConfigRow

    @property
    def keys(self) -> tuple[str, ...]:  # type: ignore[override]
        """The row's."""
        return self.row.keys

    @property
    def verbatim(self) -> bool:  # type: ignore[override]
        """The row's."""
        return self.row.verbatim

    def claims(self, key: str) -> bool:
        """Whether the row does."""
        return self.row.claims(key)

    def respelled(self, written: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
        """As the row would."""
        return self.row.respelled(written, original)

    def read(self, foreign: Foreign) -> Places:
        """What the row reads, in the encoder's places."""
        return {_encoders(place): value for place, value in self.row.read(foreign).items()}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """What the row writes of a decoder that is like the encoder."""
        return self.row.write(replace(config, decoder=config.encoder, encoder=None))


def in_encoder(rows: tuple[ConfigRow, ...]) -> tuple[ConfigRow, ...]:
    """The rows for an encoder; those that only ignore or refuse are as they were."""
    return tuple(row if isinstance(row, Ignored | Only) else InEncoder(row) for row in rows)


def also_in_encoder(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The tensors of a decoder, or of an encoder that is like it: the rows of the one that is not there fall away."""
    return rows + tuple(Same(row.theirs, _encoders(row.ours[0])) for row in rows if isinstance(row, Same))


def _encoders(place: str) -> str:
    return f"encoder.{place.removeprefix('decoder.')}" if place.startswith("decoder.") else place
