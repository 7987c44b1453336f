"""Reading. Texts through a model, many at a time, and what every head read of them, a block of rows at a time.

Everything that looks for roles stands on `blocks`: the weights of all heads of a layer for a batch of texts, so many
rows that a block stays small, with what each query could have read beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.errors import InputError
from clearhead.lens.alone import alone
from clearhead.lens.maps.attention_map import derive_weights
from clearhead.lens.roles.names import LEAST_LEFT, FirstToken
from clearhead.lens.roles.probes import Probe
from clearhead.lens.seen import Call, Kind, Seen
from clearhead.lens.watch import watch
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import EncoderDecoder

TOKENS = 2048
"""Texts are read together as long as they have about so many tokens, padding included."""

CELLS = 2**22
"""A block has about so many weights."""

Progress = Callable[[str, int, int], None]
"""Told now and then: what is being read, how many texts are done, of how many."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts as one table, the shorter ones padded at their end. numbers: which of the probes each row is."""

    numbers: list[int]
    probes: list[Probe]
    ids: Int[Tensor, "B T"]
    real: Bool[Tensor, "B T"]
    special: Bool[Tensor, "B T"]
    separators: Bool[Tensor, "B T"]
    rare: Bool[Tensor, "B T"]
    type_ids: Int[Tensor, "B T"]

    @classmethod
    def of(cls, probes: Sequence[Probe], numbers: Sequence[int] = (), pad: int = 0) -> Batch:
        """These texts, side by side."""
        length = max(map(len, probes))

        def table(rows: Sequence[Sequence[int | bool]], fill: int | bool) -> Tensor:
            return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])

        return cls(
            numbers=list(numbers) or list(range(len(probes))),
            probes=list(probes),
            ids=table([one.ids for one in probes], pad),
            real=table([[True] * len(one) for one in probes], False),
            special=table([one.special for one in probes], False),
            separators=table([one.separators for one in probes], False),
            rare=table([one.rare or [False] * len(one) for one in probes], False),
            type_ids=table([one.type_ids for one in probes], 0),
        )


@dataclass(frozen=True, eq=False)
class Block:
    """The weights of some rows of a layer, of all its heads and all texts of a batch; and which keys could be read."""

    layer: int
    rows: range
    weights: Float[Tensor, "B H q Tk"]
    readable: Bool[Tensor, "B q Tk"]


def blocks(call: Call, batch: Batch) -> Iterator[Block]:
    """What a layer read of a batch, a block of rows at a time, on the CPU. Padding neither reads nor is read."""
    q, k, lse = call.tensors
    texts, heads, length = q.shape[0], q.shape[1], k.shape[2]
    step = max(1, CELLS // max(1, texts * heads * length))
    cols = torch.arange(length, device=q.device)
    for low in range(0, q.shape[2], step):
        rows = range(low, min(q.shape[2], low + step))
        i = torch.arange(rows.start, rows.stop, device=q.device)
        weights = derive_weights(q[:, :, i], k, lse[:, :, i], call.scoring, i, cols).cpu()
        allowed = call.scoring.mask.allowed(i, cols)
        readable = (batch.real[:, rows.start : rows.stop, None] & batch.real[:, None, :]).clone()
        if allowed is not None:
            readable &= allowed.any(1).cpu()
        yield Block(call.layer, rows, weights, readable)


def without_first(block: Block, choice: FirstToken) -> Block:
    """The block with the first token treated as chosen."""
    if choice is FirstToken.KEPT:
        return block
    weights, readable = block.weights.clone(), block.readable.clone()
    weights[..., 0], readable[..., 0] = 0.0, False
    if block.rows.start == 0:
        weights[:, :, 0], readable[:, 0] = 0.0, False
    if choice is FirstToken.RENORMALISED:
        left = weights.sum(-1, keepdim=True)
        weights = torch.where(left >= LEAST_LEFT, weights / left.clamp(min=LEAST_LEFT), torch.nan)
    return replace(block, weights=weights, readable=readable)


def read(
    model: nn.Module, probes: Sequence[Probe], kind: Kind, what: str, progress: Progress | None = None
) -> Iterator[tuple[Batch, list[Call]]]:
    """Run the model over the texts, those of like length together, and give what each layer of `kind` read of them.

    In an encoder-decoder the text is both source and target, the target begun with the decoder's start token.
    What was kept is released before the next batch is read.
    """
    done = 0
    for numbers in _together([len(one) for one in probes]):
        batch = Batch.of([probes[number] for number in numbers], numbers)
        with torch.inference_mode(), alone(model), without_dropout(model), watch(model) as seen:
            batch = _run(model, batch, kind)
        yield batch, [seen.call(layer, kind) for layer in range(_layers(seen, kind))]
        seen.release()
        done += len(numbers)
        if progress is not None:
            progress(what, done, len(probes))


def _together(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The numbers of the texts, the short ones first, in groups of at most `TOKENS` tokens, padding included."""
    group: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[number] > TOKENS:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _layers(seen: Seen, kind: Kind) -> int:
    if kind not in seen.kinds:
        raise InputError(f"this model has no {kind} attention; choose one of {', '.join(seen.kinds)}.")
    return seen.n_layers(kind)


def _run(model: nn.Module, batch: Batch, kind: Kind) -> Batch:
    """Run the model over the batch; gives the batch as the attention of `kind` saw it."""
    device = next(model.parameters()).device
    ids, real = batch.ids.to(device), batch.real.to(device)
    padded = None if bool(real.all()) else real
    config = getattr(model, "config", None)
    if not isinstance(model, EncoderDecoder):
        types = batch.type_ids.to(device) if config is not None and config.embedding.token_types else None
        more = {} if types is None else {"token_type_ids": types}
        model(ids, attention_mask=padded, **more)
        return batch
    start = model.config.tokens.decoder_start
    if start is None:
        raise InputError("this model names no decoder start token; its config lacks decoder_start_token_id.")
    begun = _begun(batch, start)
    model(ids, begun.ids.to(device), attention_mask=padded, decoder_attention_mask=begun.real.to(device))
    return batch if kind == "encoder" else begun


def _begun(batch: Batch, start: int) -> Batch:
    """The texts as a decoder reads them: the start token first, all else one place later, the last token gone."""
    last = batch.real.sum(1) - 1
    keep = torch.arange(batch.ids.shape[1])[None, :] <= last[:, None]
    return replace(
        batch,
        ids=_one_later(batch.ids, start),
        real=keep,
        special=_one_later(batch.special, True),
        separators=_one_later(batch.separators, False),
        rare=_one_later(batch.rare, False),
        type_ids=_one_later(batch.type_ids, 0),
        probes=[_shifted(one, start) for one in batch.probes],
    )


def _one_later(table: Tensor, first: int | bool) -> Tensor:
    return torch.cat((torch.full_like(table[:, :1], first), table[:, :-1]), dim=1)


def _shifted(one: Probe, start: int) -> Probe:
    return replace(
        one,
        ids=[start, *one.ids[:-1]],
        special=[True, *one.special[:-1]],
        separators=[False, *one.separators[:-1]],
        type_ids=[0, *one.type_ids[:-1]],
        offsets=[(0, 0), *one.offsets[:-1]],
        rare=[False, *one.rare[:-1]] if one.rare else [],
    )
