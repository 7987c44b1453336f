"""Watching Hugging Face models. Their attention is dispatched by name; while we watch, the name is ours.

transformers calls a registered function fn(module, q, k, v, mask, …) for each attention. Ours runs the same fused
kernel and keeps the log-sum-exp beside q and k. Masks are registered under the same name and stay rules, so that no
T×T table is written for long texts. Read off transformers 5.23; what does not dispatch is refused, untouched.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.errors import LensError, NotWatchableError
from clearhead.lens.seen import Call, Kind, Seen, check_layers
from clearhead.model.kernels import Scoring, as_run, fused, fused_with_lse
from clearhead.model.masks import Causal, KeyPadding, Mask, Rule, Table, TableBias, Window, additive_table

NAME = "clearhead_lens"
"""The attention implementation's name inside transformers."""


@dataclass(frozen=True, eq=False)
class ForeignRule(Rule):
    """transformers' own mask function, asked for each tile: f(batch, head, query, key) → may it read."""

    f: Callable[..., Tensor]
    batch: Int[Tensor, " B"]
    key_offset: int

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "#B 1 q k"]:
        head = torch.zeros(1, dtype=torch.long, device=i.device)
        allowed = self.f(
            self.batch[:, None, None, None],
            head[None, :, None, None],
            (i + self.key_offset)[None, None, :, None],
            (j + self.key_offset)[None, None, None, :],
        )
        return allowed.expand(-1, 1, len(i), len(j))

    def of(self, batch: int, head: int) -> ForeignRule:
        return ForeignRule(self.f, self.batch[batch : batch + 1], self.key_offset)


class LazyMask(Mask):
    """A `Mask` that model code may carry about as it would a tensor."""

    ndim = 4

    def contiguous(self) -> LazyMask:
        """Itself: what generation with a static cache asks of a mask."""
        return self


def lazy_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Callable[..., Tensor] | None = None,
    attention_mask: Mask | Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **_: object,
) -> Mask:
    """What transformers asks for when it would write a mask: the rule instead, in its plainest form."""
    from transformers.masking_utils import causal_mask_function

    if isinstance(attention_mask, Mask):  # made before the call, as generation with a static cache does
        return attention_mask
    offset = int(q_offset) - int(kv_offset)
    rules: list[Rule] = []
    if attention_mask is not None:
        real = attention_mask[:, int(kv_offset) : int(kv_offset) + kv_length].bool()
        if real.shape[1] < kv_length:
            real = nn.functional.pad(real, (0, kv_length - real.shape[1]))
        if not bool(real.all()):
            rules.append(KeyPadding(real))
    if mask_function is causal_mask_function:
        rules.append(Causal())
    elif allow_is_causal_skip and local_size is not None and _is_sliding(mask_function):
        rules += [Causal(), Window(local_size)]
    elif mask_function is not None and not (allow_is_bidirectional_skip and local_size is None):
        if use_vmap:
            rules.append(
                _written(mask_function, batch_size, q_length, kv_length, int(q_offset), int(kv_offset), device)
            )
        else:
            rules.append(ForeignRule(mask_function, torch.arange(batch_size, device=device), int(kv_offset)))
    return LazyMask(tuple(rules), offset=offset)


def _is_sliding(mask_function: Callable[..., Tensor] | None) -> bool:
    """True for transformers' plain causal sliding window: `and_masks(sliding_window_overlay(w), causal)`."""
    if mask_function is None or mask_function.__closure__ is None:
        return False
    parts = [cell.cell_contents for cell in mask_function.__closure__]
    flat = [f for part in parts for f in (part if isinstance(part, tuple) else (part,))]
    names = {getattr(f, "__qualname__", "") for f in flat}
    return names == {"sliding_window_overlay.<locals>.inner_mask", "causal_mask_function"}


def _written(
    f: Callable[..., Tensor], batch: int, q: int, k: int, q_offset: int, k_offset: int, device: torch.device | str
) -> Rule:
    """A user's own mask function, which need not understand index tensors: written out as transformers would."""
    from transformers.masking_utils import sdpa_mask

    table = sdpa_mask(batch, q, k, q_offset, k_offset, f, allow_is_causal_skip=False, use_vmap=True, device=device)
    assert table is not None
    return Table(nn.functional.pad(table, (0, 0, q_offset - k_offset, 0)))


class _Watcher:
    """Which modules of one model are watched, and where what they say is written."""

    def __init__(self, model: nn.Module, seen: Seen, wanted: frozenset[int] | None) -> None:
        self.seen, self.wanted = seen, wanted
        self.names = {module: name for name, module in model.named_modules()}
        self.layers: dict[Kind, dict[str, int]] = {}
        self.counts: dict[str, int] = {}
        config: Any = model.config
        self.n_layers = int(getattr(config, "num_hidden_layers", 0) or 0)
        if self.n_layers:
            check_layers(wanted, self.n_layers)
        self.calls = self.passes = 0
        self._table: tuple[Tensor, int, Mask] | None = None

    def begin(self, *_: object) -> None:
        """Each pass through the model counts its layers anew, also after one that did not finish."""
        self.passes += 1
        self.counts.clear()

    def mask_of(self, table: Tensor) -> Mask:
        """The mask that a table is, worked out once for all the layers that are handed the same one."""
        version = -1 if table.is_inference() else table._version
        if self._table is None or self._table[0] is not table or self._table[1] != version:
            self._table = (table, version, _written_mask(table))
        return self._table[2]

    def place(self, module: nn.Module, cross: bool) -> tuple[Kind, int, str]:
        """The kind and layer of this call. Modules are numbered in the order in which they first run."""
        name = self.names[module]
        kind = _kind_of(name, module, cross)
        known = self.layers.setdefault(kind, {})
        first = known.setdefault(name, len(known))
        count = self.counts.get(name, 0)
        self.counts[name] = count + 1
        if len(known) == 1 and self.n_layers > 1 and _is_shared(name):
            return kind, count % self.n_layers, name
        return kind, first, name


def _is_shared(name: str) -> bool:
    return "albert_layer_groups" in name


def _kind_of(name: str, module: nn.Module, cross: bool) -> Kind:
    if cross or bool(getattr(module, "is_cross_attention", False)):
        return "cross"
    parts = name.split(".")
    if "decoder" in parts and "encoder" not in parts:
        return "decoder"
    if "encoder" in parts:
        return "encoder"
    return "decoder" if bool(getattr(module, "is_causal", False)) else "encoder"


_CROSS_NAMES = ("encoder_attn", "EncDecAttention", "crossattention", "cross_attn")

_watchers: weakref.WeakKeyDictionary[nn.Module, _Watcher] = weakref.WeakKeyDictionary()


def lens_attention(
    module: nn.Module,
    query: Float[Tensor, "B H Tq D"],
    key: Float[Tensor, "B Hkv Tk D"],
    value: Float[Tensor, "B Hkv Tk Dv"],
    attention_mask: Mask | Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Float[Tensor, "#B H #Tq Tk"] | None = None,
    softcap: float | None = None,
    s_aux: Float[Tensor, " H"] | None = None,
    **_: object,
) -> tuple[Float[Tensor, "B Tq H Dv"], None]:
    """What transformers calls for each attention while a model is watched: the fused kernel, its log-sum-exp kept."""
    watcher = _watchers.get(module)
    if isinstance(attention_mask, Tensor):
        if attention_mask.shape[-1] > key.shape[2]:
            raise LensError("the attention mask is longer than the keys; give a mask for the keys there are.")
        mask = watcher.mask_of(attention_mask) if watcher is not None else _written_mask(attention_mask)
    else:
        mask = _mask_of(module, query, attention_mask, is_causal)
    if position_bias is not None and bool(position_bias.any()):
        mask = mask.plus(_bias_of(position_bias, mask.offset))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scoring = Scoring(scale, mask, softcap, s_aux)
    if watcher is None:  # a model that shares the watched one's config
        return fused(query, key, value, scoring, dropout=dropout).transpose(1, 2).contiguous(), None
    query, key, value = as_run(query, key, value)
    out, lse = fused_with_lse(query, key, value, scoring, dropout=dropout)
    if key.shape[2] > mask.offset + query.shape[2] and any(isinstance(rule, Causal) for rule in mask.rules):
        key = key.clone()  # the whole buffer of a static cache, which later calls write into
    cross = any(word in watcher.names[module] for word in _CROSS_NAMES)
    kind, layer, name = watcher.place(module, cross)
    watcher.calls += 1
    if watcher.wanted is None or layer in watcher.wanted:
        watcher.seen.record(Call(query, key, lse, scoring, kind=kind, layer=layer, module=name))
    return out.transpose(1, 2).contiguous(), None


def _mask_of(module: nn.Module, query: Tensor, attention_mask: Mask | None, is_causal: bool | None) -> Mask:
    if attention_mask is not None:
        return attention_mask
    causal = is_causal if is_causal is not None else bool(getattr(module, "is_causal", True))
    return Mask((Causal(),)) if causal and query.shape[2] > 1 else Mask()


def _written_mask(table: Tensor) -> Mask:
    """A mask that the caller, or the model, had written out."""
    if table.dtype == torch.bool:
        return Mask((Table(table),))
    rules, biases = additive_table(table)
    return Mask(tuple(rules), tuple(biases))


def _bias_of(table: Tensor, offset: int) -> TableBias:
    """T5 hands over the rows of the new queries only; rows are looked up by position."""
    return TableBias(nn.functional.pad(table, (0, 0, offset, 0)) if offset and table.shape[2] > 1 else table)


def _refuse_what_does_not_dispatch(model: Any) -> None:
    """Raise NotWatchableError for models whose attention never asks the interface; nothing was changed yet."""
    kind = type(model).__name__
    way_out = (
        "use a model that goes through transformers' AttentionInterface"
        f"{_ours(model)}; only such attention can be watched as it runs."
    )
    if not hasattr(model, "set_attn_implementation"):
        raise NotWatchableError(
            f"{kind} comes from a transformers without AttentionInterface; upgrade to 5.0 or later."
        )
    modules = {type(m).__module__ for m in model.modules() if type(m).__module__.startswith("transformers.models.")}
    if modules and not any(hasattr(sys.modules.get(name), "ALL_ATTENTION_FUNCTIONS") for name in modules):
        raise NotWatchableError(f"{kind} computes its attention by itself and cannot be watched; {way_out}")
    if not model._can_set_attn_implementation():
        raise NotWatchableError(f"{kind} does not let its attention be chosen and cannot be watched; {way_out}")


def _ours(model: Any) -> str:
    family = str(getattr(model.config, "model_type", ""))
    return f", or load it with clearhead.load if clearhead has the family {family!r}" if family else ""


@contextmanager
def watch_transformers(model: Any, seen: Seen, wanted: frozenset[int] | None) -> Iterator[None]:
    """Watch a transformers model; its attention implementation is put back when the block ends."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    _refuse_what_does_not_dispatch(model)
    if any(module in _watchers for module in model.modules()):
        raise LensError("this model is being watched already; leave the first `with watch(...)` block before.")
    AttentionInterface.register(NAME, lens_attention)
    AttentionMaskInterface.register(NAME, lazy_mask)
    before = _implementations(model)
    watcher = _Watcher(model, seen, wanted)
    handle = model.register_forward_pre_hook(watcher.begin)
    try:
        model.set_attn_implementation(NAME)
        if model.config._attn_implementation != NAME and not any(
            config._attn_implementation == NAME for config, _ in before
        ):
            raise NotWatchableError(f"{type(model).__name__} did not take the lens's attention; it cannot be watched.")
        for module in model.modules():
            _watchers[module] = watcher
        yield
        if watcher.passes and not watcher.calls:
            raise NotWatchableError(
                f"{type(model).__name__} ran and asked for no attention through the interface; it cannot be watched"
                f"{_ours(model)}."
            )
    finally:
        handle.remove()
        for module in model.modules():
            _watchers.pop(module, None)
        for config, value in before:
            config._attn_implementation_internal = value


def _implementations(model: Any) -> list[tuple[Any, object]]:
    """Every config in the model with the attention it names now."""
    found: dict[int, tuple[Any, object]] = {}
    todo = [module.config for module in model.modules() if hasattr(module, "config")]
    while todo:
        config = todo.pop()
        if id(config) in found or not hasattr(config, "_attn_implementation_internal"):
            continue
        found[id(config)] = (config, config._attn_implementation_internal)
        todo += [sub for key in getattr(config, "sub_configs", {}) if (sub := getattr(config, key, None)) is not None]
    return list(found.values())
