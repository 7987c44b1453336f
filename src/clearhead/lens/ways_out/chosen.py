"""Chosen. The maps that are meant by a look, what was seen, or one map, and the words that stand beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clearhead.errors import InputError
from clearhead.lens.counting import counted, layers_and_heads
from clearhead.lens.given import described
from clearhead.lens.kept.call import Kind
from clearhead.lens.look import Look
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.seen import Seen

Source = Look | Seen | AttentionMap
"""What can be written to a file: everything that was looked at, or one head."""

Words = Sequence[str]


class Layer(NamedTuple):
    """The chosen heads of one layer, by number, and how many it has. A map that came alone has no kind, layer or
    number: it is head 0."""

    kind: Kind | None
    layer: int | None
    maps: dict[int, AttentionMap]
    n_heads: int = 1


def layers_of(
    source: Source, kind: Kind | None = None, layer: int | None = None, head: int | None = None, batch: int = 0
) -> Iterator[Layer]:
    """Every layer that was seen, with its heads; only those that are named, where they are.

    Of a model that ran more than once, its last run. Raises OutsideError for what is not there, InputError where a map
    alone is asked for one of its layers.
    """
    check_source(source)
    if isinstance(source, AttentionMap):
        if (kind, layer, head) != (None, None, None):
            raise InputError(f"{source.name} is one head already; leave kind, layer and head out.")
        yield Layer(None, None, {0: source})
        return
    seen = source.seen if isinstance(source, Look) else source
    for each in (seen.kinds or (None,)) if kind is None else (kind,):  # None: `Seen` says that nothing was seen
        for number in seen.layers(each) if layer is None else (layer,):
            call = seen.call(number, each)
            maps = {n: call.map(n, batch) for n in (call.heads if head is None else (head,))}
            yield Layer(each, number, maps, call.n_heads)


def check_source(source: object) -> None:
    """Raise InputError for what nothing can be written of."""
    if not isinstance(source, Look | Seen | AttentionMap):
        raise InputError(f"a look, what `watch` has seen, or one map is written; {described(source)}.")


def in_words(layers: Sequence[Layer]) -> str:
    """Which heads these are: 6 layers × 12 heads, 12 heads of layer 5, layers 1, 3 × 2 of 12 heads."""
    kept = max(len(layer.maps) for layer in layers)
    heads = max(layer.n_heads for layer in layers)
    if len(layers) == 1:
        return f"{'' if kept == heads else f'{kept} of '}{counted(heads, 'head')} of layer {layers[0].layer or 0}"
    return layers_and_heads([layer.layer or 0 for layer in layers], kept, heads)


def words_of(source: Source, kind: Kind | None) -> tuple[Words | None, Words | None]:
    """The tokens of a map's rows and of its columns, where they are known."""
    if isinstance(source, Look):
        return source.sides(kind)
    words = source.words if isinstance(source, AttentionMap) else None
    return words if words is not None else (None, None)
