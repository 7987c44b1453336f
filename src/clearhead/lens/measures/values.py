"""Values. A weight says where a head looks; the weight times the value's length says what it moves.

A head that rests on [SEP] or on the first token often reads a value of almost no length there: it looks, and takes
nothing (Kobayashi et al. 2020, "Attention is not only a weight").
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearhead.errors import InputError, OutsideError
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.places import places_of
from clearhead.lens.seen import Kind
from clearhead.model.kernels import Scoring


class ValueWeighted:
    """‖A[i, j]·f(x_j)‖ for each query and key, derived tile by tile as the weights are; rows do not sum to 1.

    `clearhead.lens.measures.heads.read` measures it like a map, and gives shares of what each query moves.
    """

    def __init__(self, m: AttentionMap, norms: Float[Tensor, " Tk"]) -> None:
        self.map, self.norms = m, norms
        self.name = f"{m.name}, weighted by its values"
        self.shape = m.shape

    @property
    def scoring(self) -> Scoring:
        """How q and k became scores; without sinks, which move nothing."""
        scoring = self.map.scoring
        return Scoring(scoring.scale, scoring.mask, scoring.softcap)

    def __repr__(self) -> str:
        return f"<ValueWeighted {self.name}: {self.shape[0]} queries × {self.shape[1]} keys>"

    def tile(self, rows: range, cols: range) -> Float[Tensor, "q k"]:
        """The norms of these queries and keys."""
        return self.map.tile(rows, cols) * self.norms[torch.tensor(list(cols), dtype=torch.long)]

    def row(self, i: int) -> Float[Tensor, " Tk"]:
        """What each key gives query i."""
        return self.map.row(i) * self.norms

    def tiles(self) -> Iterator[tuple[range, range, Float[Tensor, "q k"]]]:
        """Every tile in which something may be read."""
        for rows, cols, tile in self.map.tiles():
            yield rows, cols, tile * self.norms[cols.start : cols.stop]


def value_weighted(
    m: AttentionMap, v: Float[Tensor, "Tk Dv"] | None = None, projection: Float[Tensor, "C Dv"] | None = None
) -> ValueWeighted:
    """The norms ‖A[i, j]·f(x_j)‖ = A[i, j]·‖W_O v_j‖ of one head (Kobayashi et al. 2020, eq. 3 and 4).

    v: the head's values, biases included, one for each key; None takes those that `watch(…, receipts=True)` kept.
    projection: W_O, the head's columns of the output projection (`head_projection`); None leaves it out, and the norms
    are ‖A[i, j]·v_j‖. In the model's own units. Raises InputError where there are no values, or they do not fit.
    """
    if v is None:
        if m.shown is None:
            raise InputError(f"{m.name} kept no values; watch the model with receipts=True, or give v.")
        v = m.shown[0]
    if v.shape[0] != m.shape[1]:
        raise InputError(f"{m.name} has {m.shape[1]} keys, and {v.shape[0]} values were given; give one for each key.")
    if projection is not None and projection.shape[1] != v.shape[1]:
        raise InputError(
            f"the projection reads {projection.shape[1]} numbers and a value of {m.name} has {v.shape[1]}."
        )
    wide = torch.promote_types(v.dtype, torch.float32)
    moved = v.detach().to(wide)
    if projection is not None:
        moved = moved @ projection.detach().to(wide).T
    return ValueWeighted(m, moved.norm(dim=-1))


def head_projection(model: nn.Module, layer: int, head: int, kind: Kind | None = None) -> Float[Tensor, "C Dv"]:
    """W_O of one head of one of our models: its columns of the layer's output projection.

    kind may be left out where the model has one. Raises OutsideError for a head there is not.
    """
    kinds = {place[0] for at in places_of(model).values() for place in at}
    for module, at in places_of(model).items():
        if any(number == layer and (own == kind or (kind is None and len(kinds) == 1)) for own, number in at):
            width = module.d_head
            if not 0 <= head < module.config.n_heads:
                raise OutsideError(f"head {head} is outside layer {layer}; choose 0…{module.config.n_heads - 1}.")
            return module.o_proj.weight[:, head * width : (head + 1) * width].detach()
    raise OutsideError(f"this model has no layer {layer} of {kind or 'one single'} attention; it has {sorted(kinds)}.")
