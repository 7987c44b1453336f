"""The attention that transformers calls while a model is watched or experimented on: the fused kernel.

transformers calls fn(module, q, k, v, mask, …) for each attention, by name; while we watch, the name is ours.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from clearhead.errors import LensError
from clearhead.lens.huggingface.masks import biased, key_start, written_bias, written_mask
from clearhead.lens.huggingface.places import Places
from clearhead.lens.huggingface.refusals import refuse_checkpointing, refuse_output_attentions
from clearhead.lens.kept.call import Call
from clearhead.lens.kept.keep import Choice
from clearhead.lens.kept.runs import Arrived
from clearhead.lens.passes import Passes
from clearhead.lens.seen import Seen, check_layers
from clearhead.model.kernels import K, Kernel, Out, Q, Scoring, V, as_run, fused, fused_with_lse, kernel_name
from clearhead.model.masks import Causal, Mask

if TYPE_CHECKING:
    from clearhead.lens.huggingface.editing import Editing

editings: weakref.WeakKeyDictionary[nn.Module, tuple[Editing, ...]] = weakref.WeakKeyDictionary()
"""The experiments that stand around each module's attention now, the first the innermost."""

watchers: weakref.WeakKeyDictionary[nn.Module, Watcher] = weakref.WeakKeyDictionary()
"""Who watches each module of the models that are watched now."""


class Watcher:
    """One watched model: where its attentions stand, and where what they say is written."""

    def __init__(self, model: nn.Module, seen: Seen, choice: Choice) -> None:
        self.seen, self.choice = seen, choice
        self.places, self.passes = Places(model), Passes()
        if self.places.layers:
            check_layers(choice.layers, self.places.layers)
        self.n_calls = self.n_passes = 0
        self._written: dict[int, tuple[Tensor, int, Mask | None, Mask]] = {}

    def begin(self, model: nn.Module, args: object, given: dict[str, Any]) -> None:
        """A pass through the model begins."""
        refuse_output_attentions(model, given)
        refuse_checkpointing(model)
        if self.passes.begin():
            self.places.begin()
            self.n_passes += 1

    def end(self, *_: object) -> None:
        """It is over, well or not."""
        self._written.clear()
        self.passes.end()

    def once(self, table: Tensor, other: Mask | None, make: Callable[[], Mask]) -> Mask:
        """What `make` makes of a table (and of another mask), once for all the layers of a pass that share the two."""
        version = -1 if table.is_inference() else table._version
        known = self._written.get(id(table))
        if known is None or known[0] is not table or known[1] != version or known[2] is not other:
            known = (table, version, other, make())
            self._written[id(table)] = known
        return known[3]


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
    """What transformers calls for each attention while a model is watched or experimented on."""
    watcher = watchers.get(module)
    if watcher is not None and not watcher.passes.check():  # its pass began before
        watcher = None
    if isinstance(attention_mask, Tensor) and attention_mask.shape[-1] > key.shape[2]:
        raise LensError("the attention mask is longer than the keys; give a mask for the keys there are.")
    mask = _mask_of(watcher, module, query, attention_mask, is_causal)
    if position_bias is not None:
        mask = _with_bias(watcher, mask, position_bias)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scoring = Scoring(scale, mask, softcap, s_aux)
    # without a watcher: an experiment's model, or one that shares the watched one's config
    kernel: Kernel = fused if watcher is None else partial(_watched, watcher, module)
    for editing in editings.get(module, ()):
        kernel = editing.around(kernel, module)
    out = kernel(query, key, value, scoring, dropout=dropout)
    return out.transpose(1, 2).contiguous(), None


def _watched(watcher: Watcher, module: nn.Module, q: Q, k: K, v: V, scoring: Scoring, *, dropout: float = 0.0) -> Out:
    """The fused kernel, and what it had and gave noted."""
    q, k, v = as_run(q, k, v)
    out, lse = fused_with_lse(q, k, v, scoring, dropout=dropout)
    kind, layer, name = watcher.places.place(module)
    watcher.n_calls += 1
    if watcher.choice.wants(layer):
        ran = kernel_name(q, k, v, scoring, dropout=dropout)
        k, v = _visible(k, v, q, scoring.mask, copied=watcher.choice.receipts)
        call = Call(
            q,
            k,
            lse,
            scoring,
            kind=kind,
            layer=layer,
            module=name,
            choice=watcher.choice,
            v=v,
            out=None if dropout else out,  # with dropout it is not A·V
            kernel=ran,
            waits=True,
        )
        watcher.seen.record(call, Arrived(k.detach(), key_start(scoring.mask)))
    return out


def _mask_of(
    watcher: Watcher | None, module: nn.Module, query: Tensor, given: Mask | Tensor | None, is_causal: bool | None
) -> Mask:
    if isinstance(given, Tensor):
        return watcher.once(given, None, lambda: written_mask(given)) if watcher is not None else written_mask(given)
    if given is not None:
        return given
    causal = is_causal if is_causal is not None else bool(getattr(module, "is_causal", True))
    return Mask((Causal(),)) if causal and query.shape[2] > 1 else Mask()


def _with_bias(watcher: Watcher | None, mask: Mask, table: Tensor) -> Mask:
    def make() -> Mask:
        return biased(mask, written_bias(table, mask)) if bool(table.any()) else mask

    return watcher.once(table, mask, make) if watcher is not None else make()


def _visible(key: Tensor, value: Tensor, query: Tensor, mask: Mask, *, copied: bool) -> tuple[Tensor, Tensor]:
    """The keys and values that may be read, as they are now: a static cache hands over its whole buffer, and will
    write into it again. `copied` says whether the values are kept, too.
    """
    stop = mask.offset + query.shape[2]
    if key.shape[2] > stop and any(isinstance(rule, Causal) for rule in mask.rules):
        return key[:, :, :stop].clone(), value[:, :, :stop].clone() if copied else value[:, :, :stop]
    if hasattr(key, "_dynamo_static_input_type"):  # the mark that transformers puts on such a buffer
        return key.clone(), value.clone() if copied else value
    return key, value
