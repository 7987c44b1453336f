"""Experiments on transformers models: heads silenced and patched through the attention that the lens puts in its place.

What an experiment does at a layer is the same as for our own models (`whatif/edited.py`): a kernel around a kernel.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from clearhead.errors import LensError
from clearhead.lens.alone import alone
from clearhead.lens.huggingface.attention import editings
from clearhead.lens.huggingface.installed import configs_of, install, uninstall
from clearhead.lens.huggingface.places import Places, kind_of
from clearhead.lens.huggingface.refusals import (
    refuse_checkpointing,
    refuse_output_attentions,
    refuse_what_does_not_dispatch,
)
from clearhead.lens.kept.call import Kind
from clearhead.lens.passes import module_calls
from clearhead.model.kernels import Kernel, Scoring

if TYPE_CHECKING:
    from clearhead.lens.whatif.edited import Edit

Place = tuple[Kind, int]

LAYERS: dict[Kind, tuple[str, ...]] = {
    "encoder": ("encoder_layers", "num_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers", "num_layers"),
}
HEADS: dict[Kind, tuple[str, ...]] = {
    "encoder": ("encoder_attention_heads", "num_heads"),
    "decoder": ("decoder_attention_heads", "num_heads"),
}
"""What the configs of encoder-decoders call their layers and heads."""


def widths_of_transformers(model: nn.Module) -> dict[Place, int]:
    """How many heads each attention has, as the config tells. Raises LensError where it does not."""
    refuse_what_does_not_dispatch(model)
    config: Any = model.config
    if not getattr(config, "is_encoder_decoder", False):
        kind, layers = _kind_of(model), _told(config, ("num_hidden_layers",))
        return {(kind, layer): _told(config, ("num_attention_heads",)) for layer in range(layers)}
    found: dict[Place, int] = {}
    for kind in ("encoder", "decoder", "cross"):
        own: Kind = "encoder" if kind == "encoder" else "decoder"
        for layer in range(_told(config, LAYERS[own])):
            found[kind, layer] = _told(config, HEADS[own])
    return found


@contextmanager
def edited_transformers(model: nn.Module, edits: Mapping[Place, Edit]) -> Iterator[None]:
    """The model with these edits while the block lasts; it is put back however that ends.

    One thread at a time has them: another that would look at the model waits, and one that runs it has it whole.
    """
    refuse_what_does_not_dispatch(model)
    with alone(model):
        editing = Editing(model, edits)
        modules = list(model.modules())
        install(model)
        handle = model.register_forward_pre_hook(editing.begin, with_kwargs=True)
        try:
            for module in modules:
                editings[module] = (*editings.get(module, ()), editing)
            yield
        finally:
            with editing.closing():
                for module in modules:
                    editings[module] = tuple(each for each in editings[module] if each is not editing)
                handle.remove()
                uninstall(model)


class Editing:
    """Edits of one model, for the thread that asked for them."""

    def __init__(self, model: nn.Module, edits: Mapping[Place, Edit]) -> None:
        self.edits, self.places = edits, Places(model, configs_of(model))
        self.thread, self.modules = threading.get_ident(), set(model.modules())
        self._state = threading.Condition()
        self._waiting: set[int] = set()
        self._closing = False

    def begin(self, model: nn.Module, args: object, given: dict[str, Any]) -> None:
        """A pass through the model begins; while the model is being put back, it waits."""
        own = threading.get_ident()
        with self._state:
            self._waiting.add(own)
            while self._closing:
                self._state.wait()
            self._waiting.discard(own)
        if own != self.thread:
            return
        refuse_output_attentions(model, given)
        refuse_checkpointing(model)
        self.places.begin()

    def around(self, kernel: Kernel, module: nn.Module) -> Kernel:
        """The kernel with what is edited at this module's place."""
        if threading.get_ident() != self.thread:
            return kernel
        kind, layer, _ = self.places.place(module)
        edit = self.edits.get((kind, layer))
        if edit is None:
            return kernel

        def run(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
            return edit(kernel, q, k, v, scoring, dropout)

        return run

    @contextmanager
    def closing(self) -> Iterator[None]:
        """The block in which the model is put back: passes of other threads have ended, and none begins.

        Who will not wait (Ctrl-C) has the model put back all the same.
        """
        interrupted: KeyboardInterrupt | None = None
        with self._state:
            self._closing = True
            try:
                while self._is_inside():
                    self._state.wait(timeout=0.01)
            except KeyboardInterrupt as error:
                interrupted = error
        try:
            yield
        finally:
            with self._state:
                self._closing = False
                self._state.notify_all()
        if interrupted is not None:
            raise interrupted

    def _is_inside(self) -> bool:
        """Whether another thread runs the model, or a part of it, however long ago that began."""
        return any(
            call.f_locals.get("self") in self.modules
            for thread, frame in sys._current_frames().items()
            if thread not in (self.thread, *self._waiting)
            for call in module_calls(frame)
        )


def _told(config: Any, names: tuple[str, ...]) -> int:
    for name in names:
        number = getattr(config, name, None)
        if isinstance(number, int) and number > 0:
            return number
    raise LensError(
        f"{type(config).__name__} does not tell {' or '.join(names)}, so that heads have no names; experiment on "
        "the part of the model that has them."
    )


def _kind_of(model: nn.Module) -> Kind:
    """The kind of attention of a model with one stack."""
    kinds = {kind_of(name, m) for name, m in model.named_modules() if "Attention" in type(m).__name__}
    return "decoder" if "decoder" in kinds else "encoder"
