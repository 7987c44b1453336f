"""The sweep. The effect of every head of a model, each silenced alone: many at once, and not from the bottom again.

The heads of a layer are rows of one batch, in which row h runs without head h; the layers below start from what the
plain run left there (`replay.py`). Of n layers of H heads that is H·n·(n+1)/2 blocks instead of a loop's H·n·n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import OutsideError
from clearhead.lens.alone import alone
from clearhead.lens.maps.derived import count
from clearhead.lens.places import Place
from clearhead.lens.reading import Reading, read
from clearhead.lens.seen import KINDS, Kind
from clearhead.lens.texts import Readable
from clearhead.lens.whatif.edited import edited, widths_of
from clearhead.lens.whatif.experiments import check_how, means
from clearhead.lens.whatif.outcome import Measure, asks_the_end, check_measure, config_of, usual
from clearhead.lens.whatif.replay import Remembered
from clearhead.lens.whatif.silencing import Means, Silenced
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import Output

NUMBERS = 2**25
"""About so many numbers of a layer, 128 MB in float32, are worked on at once: it bounds how many heads run together."""


class HeadEffect(NamedTuple):
    """The effect of silencing one head."""

    kind: Kind
    layer: int
    head: int
    value: float


@dataclass(frozen=True, eq=False)
class Sweep:
    """The effect of each head. `table(kind)` has a row for each layer; `strongest` ranks them.

    rows: how many blocks ran, a block of n rows counting n; a loop of whole runs would run `loop` of them.
    """

    tables: dict[Kind, Float[Tensor, "L H"]]
    measure: Measure
    rows: int
    loop: int

    def __repr__(self) -> str:
        shapes = ", ".join(f"{kind} {x.shape[0]} layers × {x.shape[1]} heads" for kind, x in self.tables.items())
        return f"<Sweep of {shapes}: {self.measure.words}>"

    def table(self, kind: Kind | None = None) -> Float[Tensor, "L H"]:
        """Layer by head; NaN where a layer has fewer heads. `kind` may be left out where only one was swept."""
        if kind is None and len(self.tables) == 1:
            return next(iter(self.tables.values()))
        if kind not in self.tables:
            raise OutsideError(f"say which kind of attention: {', '.join(map(repr, self.tables))}.")
        return self.tables[kind]

    def strongest(self, k: int = 10) -> list[HeadEffect]:
        """The k heads without which most changes, whichever way."""
        every = [
            HeadEffect(kind, layer, head, value)
            for kind, table in self.tables.items()
            for layer, row in enumerate(table.tolist())
            for head, value in enumerate(row)
            if not math.isnan(value)
        ]
        return sorted(every, key=lambda each: -abs(each.value))[: count(k)]


@torch.inference_mode()
def sweep(
    lm: Readable,
    text: str,
    target: str | None = None,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    measure: Measure | None = None,
    how: Literal["zero", "mean"] = "zero",
    references: Sequence[str | tuple[str, str]] = (),
    kind: Kind | None = None,
) -> Sweep:
    """The effect of silencing each head alone, as if by a loop of `whatif(lm, text, Silence([(layer, head)]))`.

    target, the languages, measure, how, references: as there, and refused as there. kind: only this attention, in an
    encoder-decoder; all by default.
    """
    check_how(how, references)
    check_measure(measure)
    reading = read(lm, text, target, source_language=source_language, target_language=target_language)
    model = lm.model
    widths = widths_of(model)
    kinds = [each for each in KINDS if any(place[0] == each for place in widths)]
    if kind is not None and kind not in kinds:
        raise OutsideError(f"this model has no {kind!r} attention; choose one of {', '.join(kinds)}.")
    found: dict[Place, Tensor] = {}
    with alone(model), without_dropout(model):
        chosen = usual(lm) if measure is None else measure
        end = asks_the_end(lm, chosen)
        plain: list[Output] = []
        remembered = Remembered(model, lambda: plain.append(reading.run(model, last_only=end)))
        before = plain[0]
        chosen = chosen.bound(lm, reading, before)
        said = means(lm, reading, how, references)
        chunk = _together(lm, reading, end)
        for place, width in widths.items():
            if kind is not None and place[0] != kind:
                continue
            parts = []
            for start in range(0, width, chunk):
                heads = torch.arange(start, min(width, start + chunk), device=reading.ids.device)
                gone = heads[:, None] == torch.arange(width, device=heads.device)
                edit = Silenced(gone, said.vectors[place] if isinstance(said, Means) else None)
                with edited(model, {place: edit}), remembered.replayed(place, len(heads)):
                    after = reading.run(model, len(heads), last_only=end)
                parts.append(chosen.of(before, after).cpu())
            found[place] = torch.cat(parts)
    blocks = sum(stack.config.n_layers for stack in remembered.stacks)
    return Sweep(_tables(found), chosen, remembered.rows, blocks * sum(map(len, found.values())))


def _tables(found: dict[Place, Tensor]) -> dict[Kind, Float[Tensor, "L H"]]:
    tables: dict[Kind, Tensor] = {}
    for kind in dict.fromkeys(place[0] for place in found):
        rows = [values for place, values in found.items() if place[0] == kind]
        table = torch.full((len(rows), max(map(len, rows))), math.nan, dtype=torch.float64)
        for layer, values in enumerate(rows):
            table[layer, : len(values)] = values
        tables[kind] = table
    return tables


def _together(lm: Readable, reading: Reading, last_only: bool) -> int:
    """How many rows run at once: each takes T times the widest layer, and its logits."""
    config = config_of(lm)
    length = max(reading.ids.shape[1], reading.target_ids.shape[1] if reading.target_ids is not None else 0)
    widest = max(
        max(2 * stack.feedforward_of(layer).d_ff for layer in range(stack.n_layers)) for stack in config.stacks
    )
    logits = 0 if config.head is None else config.target_vocab_size * (1 if last_only else length)
    return max(1, NUMBERS // (length * (widest + 6 * config.d_model) + logits))
