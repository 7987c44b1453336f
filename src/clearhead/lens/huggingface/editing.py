"""Experiments on transformers models: heads silenced and patched through the attention that the lens puts in its place.

What an experiment does at a layer is the same as for our own models (`whatif/edited.py`): a kernel around a kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from clearhead.errors import LensError, NotWatchableError
from clearhead.lens.alone import alone
from clearhead.lens.huggingface.attention import editings
from clearhead.lens.huggingface.installed import install, uninstall
from clearhead.lens.huggingface.places import Places, heads_in
from clearhead.lens.huggingface.refusals import (
    refuse_checkpointing,
    refuse_output_attentions,
    refuse_what_does_not_dispatch,
    way_out,
)
from clearhead.lens.passes import Door, others_inside
from clearhead.lens.places import Place
from clearhead.model.kernels import Kernel, Scoring

if TYPE_CHECKING:
    from clearhead.lens.whatif.edited import Edit


def widths_of_transformers(model: nn.Module) -> dict[Place, int]:
    """How many heads each attention has that asks the interface for its kernel, by kind and layer.

    Raises NotWatchableError where none does, LensError where one does not tell its heads.
    """
    refuse_what_does_not_dispatch(model)
    found = {place: heads_in(module) for module, at in Places(model).at.items() for place in at}
    if not found:
        raise NotWatchableError(
            f"no attention of {type(model).__name__} is seen to ask for its kernel by name, so that none can be "
            f"changed; {way_out(model)}"
        )
    return found


@contextmanager
def edited_transformers(model: nn.Module, edits: Mapping[Place, Edit], *, must_run: bool = True) -> Iterator[None]:
    """The model with these edits while the block lasts; it is put back however that ends.

    One thread at a time has them: another that would look at the model waits. One that runs it has every head, to
    rounding, for its passes go through the lens's kernels too; nor can it have `output_attentions` meanwhile.
    Raises LensError, when the block ends, where the model ran and one of these places did not: unless `must_run` is
    False, for then nothing was changed there.
    """
    refuse_what_does_not_dispatch(model)
    with alone(model):
        editing = Editing(model, edits)
        modules, handles = editing.places.names, []
        install(model)
        try:
            handles.append(model.register_forward_pre_hook(editing.begin, with_kwargs=True))
            for module in modules:
                editings[module] = (*editings.get(module, ()), editing)
            yield
            if must_run:
                editing.check()
        finally:
            with editing.closing():
                try:  # a second Ctrl-C skips one of these, not the rest
                    uninstall(model)
                finally:
                    try:
                        for handle in handles:
                            handle.remove()
                    finally:
                        for module in modules:  # some have none yet where Ctrl-C came in between
                            editings[module] = tuple(each for each in editings.get(module, ()) if each is not editing)


class Editing:
    """Edits of one model, for the thread that asked for them."""

    def __init__(self, model: nn.Module, edits: Mapping[Place, Edit]) -> None:
        self.edits, self.places = edits, Places(model)
        self.thread = threading.get_ident()
        self.began = False
        self.ran: set[Place] = set()
        self._door = Door()
        self._waiting: set[int] = set()

    def begin(self, model: nn.Module, args: object, given: dict[str, Any]) -> None:
        """A pass through the model begins; while the model is being put back, it waits."""
        own = threading.get_ident()
        with self._door.state:
            self._waiting.add(own)
            is_open = self._door.is_open()
            self._waiting.discard(own)
        if not is_open:  # it has the model as it was before
            return
        refuse_output_attentions(model, given)
        if own != self.thread:
            return
        refuse_checkpointing(model)
        self.began = True
        self.places.begin()

    def around(self, kernel: Kernel, module: nn.Module) -> Kernel:
        """The kernel with what is edited at this module's place."""
        if threading.get_ident() != self.thread:
            return kernel
        kind, layer, _ = self.places.place(module)
        self.began = True
        edit = self.edits.get((kind, layer))
        if edit is None:
            return kernel
        self.ran.add((kind, layer))

        def run(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
            if q.shape[1] != (told := heads_in(module)):
                raise LensError(
                    f"{type(module).__name__} runs {q.shape[1]} heads and tells of {told}, so that they have no "
                    "names; experiment on the part of the model that tells, or load it with clearhead.load."
                )
            return edit(kernel, q, k, v, scoring, dropout)

        return run

    def check(self) -> None:
        """Raise LensError where the model ran and the attention at one of the places did not."""
        idle = [place for place in self.edits if place not in self.ran]
        if self.began and idle:
            kind, layer = idle[0]
            raise LensError(
                f"the model ran, but its {kind} layer {layer} never asked for its attention, so that the change there "
                "had no effect: a decoder reads an encoder only where its states are given, and a layer may be "
                "dropped in training, or compute its attention by itself; give the states, call model.eval(), or "
                "choose another layer."
            )

    @contextmanager
    def closing(self) -> Iterator[None]:
        """The block in which the model is put back: passes of other threads have ended, and none begins."""
        with self._door.closing(lambda: others_inside(self.places.names, {self.thread, *self._waiting})):
            yield
