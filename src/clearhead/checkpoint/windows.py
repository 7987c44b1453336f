"""Windows that a flag switches on: `use_sliding_window`, and which layers it is for. (Qwen 2 and 3, SmolLM 3.)

transformers 4.5x and 5 read `layer_types`; versions before counted layers. Both are written, and say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clearhead.checkpoint.common import GLOBAL, LOCAL, local_layers
from clearhead.checkpoint.config_rules import ConfigRow, Convert, Foreign
from clearhead.checkpoint.places import Places, get
from clearhead.errors import CheckpointError
from clearhead.model.config import ModelConfig


def switched_windows(
    *, n_layers: int, window: int | None, local: Callable[[Foreign, int], bool], counted: bool = False
) -> ConfigRow:
    """The row of windows behind a flag. local: which layers have one, where the file does not list them.

    n_layers, window: what a file means that says neither. counted: `max_window_layers` is written as well.
    """

    def read(foreign: Foreign) -> Places:
        width = foreign.optional_whole("sliding_window", window)
        if not foreign.flag("use_sliding_window", False):
            width = None
        kinds = local_layers(foreign, n_layers, lambda layer: width is not None and local(foreign, layer))
        if width is None and any(kinds):
            raise CheckpointError(
                f"{foreign.where}: layer_types asks for {LOCAL}, and use_sliding_window and sliding_window give no "
                "window; correct the file."
            )
        return {"decoder.attention[].window": tuple(width if kind else None for kind in kinds)}

    def write(config: ModelConfig) -> dict[str, Any]:
        if config.decoder is None:
            return {}
        windows = get(config, "decoder.attention[].window")
        width = next((one for one in windows if one is not None), None)
        first = next((layer for layer, one in enumerate(windows) if one is not None), len(windows))
        return {
            "use_sliding_window": width is not None,
            "sliding_window": width,
            "layer_types": [GLOBAL if one is None else LOCAL for one in windows],
            **({"max_window_layers": first} if counted else {}),
        }

    keys = ("use_sliding_window", "sliding_window", "layer_types", *(("max_window_layers",) if counted else ()))
    return Convert(keys, read, write)


def from_layer(default: int) -> Callable[[Foreign, int], bool]:
    """Qwen's rule: the layers from `max_window_layers` on have a window."""
    return lambda foreign, layer: layer >= foreign.whole("max_window_layers", default)
