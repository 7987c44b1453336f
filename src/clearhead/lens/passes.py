"""Passes. A watched model has one watcher and runs one pass at a time; leaving the block waits for one under way.

A pass is one forward call of the whole model. What is kept of two that ran at once could not be told apart, and a pass
that is half watched is worth nothing; so both are kept from happening, in one line. What was under way before the
model was watched is not seen: it goes on as it began.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from torch import nn

from clearhead.errors import LensError

_claimed: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_gate = threading.Lock()


@contextmanager
def claimed(model: nn.Module, modules: Iterable[nn.Module]) -> Iterator[None]:
    """The model, and every part of it, for one watcher while the block lasts. Raises LensError where it has one.

    modules: all of the model's. A part without parts, such as an embedding, may belong to two models that are watched
    at once.
    """
    own = [module for module in modules if module is model or any(x is not None for x in module._modules.values())]
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


class Door:
    """Through which passes go into a model. While the model is put back it is held shut, and then it is closed."""

    def __init__(self) -> None:
        self.state = threading.Condition()
        self.closed = self._shut = False

    def is_open(self) -> bool:
        """Whether what begins now is looked at, or changed; it waits while that is not known. Called with `state`."""
        while self._shut:
            self.state.wait()
        return not self.closed

    @contextmanager
    def closing(self, occupied: Callable[[], bool]) -> Iterator[None]:
        """The block in which the model is put back: no other thread is inside, and none comes in.

        occupied: whether one is. Who will not wait (Ctrl-C) has the model put back all the same.
        """
        interrupted: KeyboardInterrupt | None = None
        try:
            try:
                with self.state:
                    self._shut = True
                    while occupied():
                        self.state.wait(timeout=0.01)
            except KeyboardInterrupt as error:
                interrupted = error
            yield
        finally:
            with self.state:
                self._shut, self.closed = False, True
                self.state.notify_all()
        if interrupted is not None:
            raise interrupted


class Passes:
    """Which thread is inside the model, and which were inside before there was a watcher.

    A thread is inside while the call of the model that it made is on its stack: one that died, or that an exception of
    any kind took out of it, is inside no more.
    """

    def __init__(self) -> None:
        self._door = Door()
        self._pass: tuple[threading.Thread, FrameType | None] | None = None
        self._before: dict[int, FrameType] = {}  # what began unwatched: by thread, the call of the model
        self._open = False

    def open(self, modules: Container[nn.Module]) -> None:
        """All is in its place: what begins from now on is watched, and what is under way goes on as it began."""
        with self._door.state:
            for thread, frame in sys._current_frames().items():
                for each in module_calls(frame):
                    if each.f_locals.get("self") in modules:
                        self._before[thread] = each
            self._open = True

    def begin(self) -> bool:
        """A pass begins; True if it is watched. Raises LensError while another thread is inside."""
        with self._door.state:
            if not self._door.is_open() or not self.check():  # it runs as the model was before
                return False
            self._pass = threading.current_thread(), next(module_calls(sys._getframe()), None)
            return True

    def end(self) -> None:
        """The pass of this thread is over, well or not."""
        with self._door.state:
            if self._pass is not None and self._pass[0] is threading.current_thread():
                self._pass = None
                self._door.state.notify_all()

    def check(self) -> bool:
        """True if what this thread asks is watched, not if it began before. Raises LensError if another is inside."""
        if not self._open or self._door.closed or self._began_before():
            return False
        if self._other() is not None:
            raise LensError(
                "a watched model runs one pass at a time, and another thread is inside; call it from one thread after "
                "the other, or watch a copy of it in each."
            )
        return True

    @contextmanager
    def closing(self) -> Iterator[None]:
        """The block in which the model is put back: the pass of another thread has ended, and none begins."""
        try:
            with self._door.closing(lambda: self._other() is not None):
                yield
        finally:
            self._pass = None
            self._before.clear()

    def _other(self) -> threading.Thread | None:
        """The other thread that is inside."""
        now = self._pass
        if now is None or now[0] is threading.current_thread() or not now[0].is_alive():
            return None
        thread, call = now
        stack = sys._current_frames().get(thread.ident or 0)
        return thread if call is None or any(each is call for each in module_calls(stack)) else None

    def _began_before(self) -> bool:
        thread = threading.get_ident()
        call = self._before.get(thread)
        if call is None:
            return False
        if any(each is call for each in module_calls(sys._getframe())):
            return True
        self._before.pop(thread, None)  # `closing` may have cleared it meanwhile
        return False


def others_inside(modules: Container[nn.Module], but: Container[int]) -> bool:
    """Whether a thread, `but` for these, runs one of these modules, however long ago that began."""
    return any(
        call.f_locals.get("self") in modules
        for thread, frame in sys._current_frames().items()
        if thread not in but
        for call in module_calls(frame)
    )


def module_calls(frame: FrameType | None) -> Iterator[FrameType]:
    """The calls of modules on a stack, the innermost first."""
    while frame is not None:
        if frame.f_code is nn.Module._call_impl.__code__:
            yield frame
        frame = frame.f_back
