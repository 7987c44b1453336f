"""One at a time. Whoever looks at a model, or changes what its kernels do, has it alone while a block lasts."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_making = threading.Lock()


@contextmanager
def alone(model: nn.Module) -> Iterator[None]:
    """The model for this thread alone: others that ask for it wait; the same thread may ask again, block in block."""
    with _making:
        lock = _locks.setdefault(model, threading.RLock())
    with lock:
        yield
