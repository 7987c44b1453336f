"""Masks from elsewhere. What transformers says about who may read whom, as rules that any tile can be had of.

transformers asks a function registered under the lens's name for each mask. Ours answers with the rule, not the table,
so that nothing T×T is written for long texts. What a caller or a model wrote out himself is read back into rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.lens.kept.placed import DistanceBias
from clearhead.model.masks import Bias, Causal, KeyPadding, Mask, Rule, Table, TableBias, Window, additive_table


@dataclass(frozen=True, eq=False)
class ForeignRule(Rule):
    """transformers' own mask function, asked for each tile: f(batch, head, query, key) → may it read."""

    f: Callable[..., Tensor]
    batch: Int[Tensor, " B"]
    key_offset: int

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "#B 1 q k"]:
        head = torch.zeros(1, dtype=torch.long, device=i.device)
        allowed = self.f(
            self.batch[:, None, None, None],
            head[None, :, None, None],
            (i + self.key_offset)[None, None, :, None],
            (j + self.key_offset)[None, None, None, :],
        )
        return allowed.expand(-1, 1, len(i), len(j))

    def of(self, batch: int, head: int) -> ForeignRule:
        return ForeignRule(self.f, self.batch[batch : batch + 1], self.key_offset)


@dataclass(frozen=True, eq=False)
class LazyMask(Mask):
    """A `Mask` that model code may carry about as it would a tensor. key_start: where the first of the keys stands."""

    key_start: int = 0
    ndim = 4

    def contiguous(self) -> LazyMask:
        """Itself: what generation with a static cache asks of a mask."""
        return self

    def __radd__(self, scores: Float[Tensor, "B H Tq Tk"]) -> Float[Tensor, "B H Tq Tk"]:
        """Scores under it, written out: of a part of the model that computes its attention by itself."""
        tile = self.additive(range(scores.shape[2]), range(scores.shape[3]), dtype=scores.dtype, device=scores.device)
        return scores if tile is None else scores + tile.clamp(min=torch.finfo(scores.dtype).min)


def key_start(mask: Mask) -> int:
    """Where the first of the keys stands in the text: past 0 once a sliding cache has let go of earlier ones."""
    return mask.key_start if isinstance(mask, LazyMask) else 0


def biased(mask: Mask, *biases: Bias) -> Mask:
    """The mask with these biases."""
    return LazyMask(mask.rules, (*mask.biases, *biases), mask.offset, key_start=key_start(mask))


def lazy_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Callable[..., Tensor] | None = None,
    attention_mask: Mask | Tensor | None = None,
    local_size: int | None = None,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **_: object,
) -> Mask:
    """What transformers asks for when it would write a mask: the rule instead, in its plainest form."""
    from transformers.masking_utils import causal_mask_function

    if isinstance(attention_mask, Mask):  # made before the call, as generation with a static cache does
        return attention_mask
    start = int(kv_offset)
    rules: list[Rule] = []
    if attention_mask is not None:
        real = attention_mask[:, start : start + kv_length].bool()
        if real.shape[1] < kv_length:
            real = nn.functional.pad(real, (0, kv_length - real.shape[1]))
        if not bool(real.all()):
            rules.append(KeyPadding(real))
    if mask_function is causal_mask_function:
        rules.append(Causal())
    elif local_size is not None and _is_sliding(mask_function):
        rules += [Causal(), Window(local_size)]
    elif mask_function is not None and not (allow_is_bidirectional_skip and local_size is None):
        if use_vmap:
            rules.append(_written(mask_function, batch_size, q_length, kv_length, int(q_offset), start, device))
        else:
            rules.append(ForeignRule(mask_function, torch.arange(batch_size, device=device), start))
    return LazyMask(tuple(rules), offset=int(q_offset) - start, key_start=start)


def _is_sliding(mask_function: Callable[..., Tensor] | None) -> bool:
    """True for transformers' plain causal sliding window: `and_masks(sliding_window_overlay(w), causal)`."""
    if mask_function is None or mask_function.__closure__ is None:
        return False
    parts = [cell.cell_contents for cell in mask_function.__closure__]
    flat = [f for part in parts for f in (part if isinstance(part, tuple) else (part,))]
    names = {getattr(f, "__qualname__", "") for f in flat}
    return names == {"sliding_window_overlay.<locals>.inner_mask", "causal_mask_function"}


def _written(
    f: Callable[..., Tensor], batch: int, q: int, k: int, q_offset: int, k_offset: int, device: torch.device | str
) -> Rule:
    """A user's own mask function, which need not understand index tensors: written out as transformers would."""
    from transformers.masking_utils import sdpa_mask

    table = sdpa_mask(batch, q, k, q_offset, k_offset, f, allow_is_causal_skip=False, use_vmap=True, device=device)
    assert table is not None
    return Table(nn.functional.pad(table, (0, 0, q_offset - k_offset, 0)))


def written_mask(table: Tensor) -> Mask:
    """A mask that the caller, or the model, had written out."""
    if table.dtype == torch.bool:
        return Mask((Table(table),))
    rules, biases = additive_table(table)
    return Mask(tuple(rules), tuple(biases))


def written_bias(table: Float[Tensor, "#B #H #Tq Tk"], mask: Mask) -> Bias:
    """The bias of the rows of the new queries, which is added under this mask.

    One that depends on the distance alone, as T5's does, is kept as a number a distance: O(T), not O(T²).
    """
    offset = mask.offset
    keys = offset + table.shape[2]
    causal = any(isinstance(rule, Causal) for rule in mask.rules)
    seen = table[..., :keys] if causal else table  # the empty end of a static cache is read by nobody
    whole = keys == seen.shape[3] and not table.requires_grad
    if whole and torch.equal(seen[..., 1:, 1:], seen[..., :-1, :-1]):
        first_column, first_row = seen[..., 0].flip(-1), seen[:, :, 0, 1:]
        return DistanceBias(torch.cat((first_column, first_row), dim=-1), lowest=1 - table.shape[2] - offset)
    return TableBias(nn.functional.pad(table, (0, 0, offset, 0)) if offset and table.shape[2] > 1 else table)
