"""Replay. The layers below an experiment say what they said in the plain run, so that they are not run again.

A head of layer l changes nothing below it. What the plain run's blocks gave is remembered; while a `with` block lasts,
those below l give it again, in as many rows as are asked for, and the model's own code does the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from clearhead.lens.places import Place
from clearhead.model.stack import Stack

Stream = Float[Tensor, "B T C"]


class Remembered:
    """What each block of each stack gave in the plain run, and how many blocks' rows have run since."""

    def __init__(self, model: nn.Module, run: Callable[[], object]) -> None:
        """Call `run`, which reads one text with the model, and remember it. Layers that share a block run anew."""
        self.stacks = [module for module in model.modules() if isinstance(module, Stack)]
        self.given: dict[Stack, list[Stream]] = {stack: [] for stack in self.stacks}
        self.rows = 0
        thread, handles = threading.get_ident(), []

        def remember(given: list[Stream], out: Stream) -> None:
            if threading.get_ident() == thread:  # another may run the model meanwhile, on another text
                given.append(out)

        for stack in self.stacks:
            for block in stack.blocks:
                given = self.given[stack]
                handles.append(block.register_forward_hook(lambda _m, _a, out, given=given: remember(given, out)))
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()

    def below(self, place: Place) -> Mapping[Stack, int]:
        """How many blocks of each stack stand below a place, and need not run again."""
        kind, layer = place
        found = {}
        for stack in self.stacks:
            if stack.config.n_blocks < stack.config.n_layers:
                found[stack] = 0
            elif stack.bidirectional and kind != "encoder":  # an encoder, below the decoder as a whole
                found[stack] = stack.config.n_layers
            elif stack.bidirectional == (kind == "encoder"):
                found[stack] = layer
            else:
                found[stack] = 0
        return found

    @contextmanager
    def replayed(self, place: Place, rows: int) -> Iterator[None]:
        """While the block lasts, what stands below the place is remembered, in so many rows. For this thread alone."""
        thread = threading.get_ident()
        changed: list[nn.Module] = []
        try:
            for stack, below in self.below(place).items():
                for layer, block in enumerate(stack.blocks):
                    if layer < below:
                        given = self.given[stack][layer].expand(rows, -1, -1)
                        block.forward = _instead(block.forward, given, thread)
                        changed.append(block)
                self.rows += rows * (stack.config.n_layers - below)
            yield
        finally:
            for block in changed:
                del block.forward  # the class's own


def _instead(forward: Callable[..., Tensor], given: Stream, thread: int) -> Callable[..., Tensor]:
    def remembered(*arguments: object, **options: object) -> Tensor:
        return given if threading.get_ident() == thread else forward(*arguments, **options)

    return remembered
