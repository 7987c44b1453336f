"""Chosen. The maps that are meant by a look, what was seen, or one map, and the words that stand beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clearhead.errors import InputError
from clearhead.lens.kept.call import Kind
from clearhead.lens.look import Look
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.seen import Seen

Source = Look | Seen | AttentionMap
"""What can be written to a file: everything that was looked at, or one head."""

Words = Sequence[str]


class Layer(NamedTuple):
    """The chosen heads of one layer, by number. A map that came alone has no kind, layer or number: it is head 0."""

    kind: Kind | None
    layer: int | None
    maps: dict[int, AttentionMap]


def layers_of(
    source: Source, kind: Kind | None = None, layer: int | None = None, head: int | None = None, batch: int = 0
) -> Iterator[Layer]:
    """Every layer that was seen, with its heads; only those that are named, where they are.

    Of a model that ran more than once, its last run. Raises OutsideError for what is not there, InputError where a map
    alone is asked for one of its layers.
    """
    if isinstance(source, AttentionMap):
        if (kind, layer, head) != (None, None, None):
            raise InputError(f"{source.name} is one head already; leave kind, layer and head out.")
        yield Layer(None, None, {0: source})
        return
    seen = source.seen if isinstance(source, Look) else source
    for each in (seen.kinds or (None,)) if kind is None else (kind,):  # None: `Seen` says that nothing was seen
        for number in range(seen.n_layers(each)) if layer is None else (layer,):
            if layer is None and seen.n_calls(each, number) == 0:
                continue  # not among those that were watched
            call = seen.call(number, each)
            yield Layer(each, number, {n: call.map(n, batch) for n in (call.heads if head is None else (head,))})


def words_of(source: Source, kind: Kind | None) -> tuple[Words | None, Words | None]:
    """The tokens of a map's rows and of its columns, where they are known."""
    if isinstance(source, Look):
        return source.sides(kind)
    words = source.words if isinstance(source, AttentionMap) else None
    return words if words is not None else (None, None)
