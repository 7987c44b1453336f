"""Passes. A watched model has one watcher and runs one pass at a time; leaving the block waits for one under way.

A pass is one forward call of the whole model. What is kept of two that ran at once could not be told apart, and a pass
that is half watched is worth nothing; so both are kept from happening, in one line.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from clearhead.errors import LensError

_claimed: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_gate = threading.Lock()


@contextmanager
def claimed(model: nn.Module) -> Iterator[None]:
    """The model, and every part of it, for one watcher while the block lasts. Raises LensError where it has one.

    A part without parts, such as an embedding, may belong to two models that are watched at once.
    """
    own = [module for module in model.modules() if module is model or any(True for _ in module.children())]
    with _gate:
        if any(module in _claimed for module in own):
            raise LensError(
                "this model, or a part of it, is being watched already; leave the first `with watch(...)` block before."
            )
        _claimed.update(own)
    try:
        yield
    finally:
        with _gate:
            _claimed.difference_update(own)


class Passes:
    """Which thread is inside the model."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._state = threading.Condition()
        self._closing = self._closed = False

    def begin(self) -> None:
        """A pass begins. Raises LensError while another thread is inside."""
        with self._state:
            while self._closing:  # what begins now runs as the model was before
                self._state.wait()
            if self._closed:
                return
            self.check()
            self._thread = threading.current_thread()

    def end(self) -> None:
        """The pass of this thread is over, well or not."""
        with self._state:
            if self._thread is threading.current_thread():
                self._thread = None
                self._state.notify_all()

    def check(self) -> None:
        """Raise LensError where this thread is not the one that is inside."""
        inside = self._thread
        if inside is not None and inside is not threading.current_thread() and inside.is_alive():
            raise LensError(
                "a watched model runs one pass at a time, and another thread is inside; call it from one thread after "
                "the other, or watch a copy of it in each."
            )

    @contextmanager
    def closing(self) -> Iterator[None]:
        """The block in which the model is put back: no other thread is inside, and none comes in."""
        with self._state:
            self._closing = True
            while (inside := self._thread) is not None and inside is not threading.current_thread():
                if not inside.is_alive():
                    break
                self._state.wait(timeout=0.1)
        try:
            yield
        finally:
            with self._state:
                self._closing, self._closed = False, True
                self._state.notify_all()
