"""look. Run a model over a text and keep what every head reads, with the words beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from clearhead.errors import InputError
from clearhead.lens.alone import alone
from clearhead.lens.counting import counted
from clearhead.lens.given import described
from clearhead.lens.kept.keep import AS_RUN, Keep
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.maps.receipts import Receipts
from clearhead.lens.reading import Reading, read
from clearhead.lens.seen import Kind, Link, Seen
from clearhead.lens.texts import Encoded as Encoded
from clearhead.lens.texts import Readable as Readable
from clearhead.lens.texts import Tokenizing as Tokenizing
from clearhead.lens.watch import watch
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import Output


class Look:
    """What every head reads in one text. `tokens` are the words, `map(layer, head)` the weights, `ask` the links.

    In an encoder-decoder `tokens` are the source's and `target_tokens` the target's. `output` is the model's own,
    `name` what it was loaded as.
    """

    def __init__(self, seen: Seen, reading: Reading, output: Output, *, name: str = "") -> None:
        self.seen, self.reading, self.output, self.name = seen, reading, output, name
        self.text, self.tokens = reading.text, list(reading.encoding.labels)
        self.offsets = list(reading.encoding.offsets)
        self.target = reading.target
        self.target_tokens = list(reading.begun.labels) if reading.begun is not None else []
        self.target_offsets = list(reading.begun.offsets) if reading.begun is not None else []

    def __repr__(self) -> str:
        shape = ", ".join(f"{kind}: {self.seen.shape_of(kind)}" for kind in self.kinds)
        return f"<Look at {counted(len(self.tokens), 'token')}; {shape}>"

    def _repr_html_(self) -> str:
        """A small picture of all heads, for notebooks."""
        from clearhead.lens.ways_out.notebook import heads_html

        return heads_html(self)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of attention there are."""
        return self.seen.kinds

    def n_layers(self, kind: Kind | None = None) -> int:
        """How many layers of this kind there are, up to the last that was kept."""
        return self.seen.n_layers(kind)

    def n_heads(self, kind: Kind | None = None, layer: int | None = None) -> int:
        """How many heads a layer has; the first that was seen, where none is named."""
        return self.seen.n_heads(kind, layer)

    def map(self, layer: int, head: int, kind: Kind | None = None) -> AttentionMap:
        """One head's weights: rows are the tokens that read, columns the tokens that are read."""
        m = self.seen.map(layer, head, kind)
        m.words = self.sides(kind)
        return m

    def sides(self, kind: Kind | None = None) -> tuple[list[str], list[str]]:
        """The tokens of a map's rows and of its columns."""
        kind = kind if kind is not None else self.kinds[0]
        if self.target is None or kind == "encoder":
            return self.tokens, self.tokens
        return self.target_tokens, self.tokens if kind == "cross" else self.target_tokens

    def find(self, word: str | int, *, target: bool = False) -> list[int]:
        """The tokens of a word: its first occurrence in the text, its n-th as `word#n` from 1, or a token by its index.
        A word counts as it is written; only where the text never has it so, in any case.

        Raises OutsideError, naming the tokens there are, where the text has no such word.
        """
        return self.reading.find(word, target=target)

    def ask(self, query: str | int, key: str | int, kind: Kind | None = None) -> list[Link]:
        """Every head of every layer, ranked by the weight that word `query` gives to word `key`.

        Raises InputError where no head could read that way round, as a decoder cannot read what comes later.
        """
        kind = kind if kind is not None else self.kinds[0] if len(self.kinds) == 1 else None
        rows = self.find(query, target=self.target is not None and kind != "encoder")
        cols = self.find(key, target=self.target is not None and kind == "decoder")
        links = self.seen.links(rows, cols, kind)
        if all(link.weight == 0.0 for link in links):
            raise InputError(
                f"no head can read {key!r} from {query!r}: a decoder reads only what came before; "
                f"ask for {key!r} reading {query!r} instead."
            )
        return links

    def verify(self, rows: Sequence[int] | None = None, *, atol: float | None = None) -> Receipts:
        """Proof, head by head, that what is shown is what ran, the worst first: see `lens/maps/receipts.py`."""
        return self.seen.verify(rows, atol=atol)

    def release(self) -> None:
        """Give the tensors back."""
        self.seen.release()


def seen_in(source: object, function: str) -> Seen:
    """What a look, or a watched block, has seen. Raises InputError for another thing, naming the function."""
    inner = source.seen if isinstance(source, Look) else source
    if isinstance(inner, Seen):
        return inner
    if isinstance(source, AttentionMap):
        raise InputError(f"{function} takes all that was seen, and {source.name} is one head's map; give the look.")
    raise InputError(f"{function} takes a look, or what `watch` has seen; {described(source)}.")


@torch.inference_mode()
def look(
    lm: Readable,
    text: str,
    target: str | None = None,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    keep: Keep = AS_RUN,
    receipts: bool = False,
) -> Look:
    """Run the model over the text, once, and keep what every head reads.

    lm: what `clearhead.load` gives. target: the decoder's text, for an encoder-decoder; it begins with the start token
    (a classifier's decoder reads the text itself again). source_language, target_language: for a translator that is
    told them. layers, heads, keep, receipts: what is kept, and where, as for `clearhead.watch`; all of it in memory by
    default.
    Raises InputError for an empty text, ContextError for one longer than the model's positions.
    """
    reading = read(lm, text, target, source_language=source_language, target_language=target_language)
    model = lm.model
    watching = watch(model, layers=layers, heads=heads, keep=keep, receipts=receipts)
    with alone(model), without_dropout(model), watching as seen:  # a model in training reads the same text the same way
        output = reading.run(model)
    return Look(seen, reading, output, name=getattr(lm, "name", ""))
