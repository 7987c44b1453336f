"""Rows of a batch: which of their tokens are real, where each stands, and which packed text it belongs to.

What a call is given is looked at here, before anything is read.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.errors import InputError
from clearhead.model.cache import count_positions
from clearhead.model.config import ALiBi, StackConfig, T5Bias
from clearhead.model.embedding import check_batch, check_shape

Ids = Int[Tensor, "B T"]
Real = Bool[Tensor, "B T"] | Int[Tensor, "B T"]


def real_tokens(input_ids: Ids, attention_mask: Real | None) -> tuple[Bool[Tensor, "B T"], bool]:
    """Which tokens are real, and whether any is padding. Raises InputError where the mask's shape is not the ids'."""
    check_batch(input_ids)
    check_shape("attention_mask", attention_mask, input_ids.shape)
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool), False
    real = attention_mask.bool()
    return real, not bool(real.all())


def positions_of(real: Bool[Tensor, "B T"], documents: Ids | None) -> Ids:
    """Counted over real tokens; each packed document begins at 0 again."""
    counted = count_positions(real)
    if documents is None:
        return counted
    before = counted + (~real).long()  # the real tokens that came before
    return counted - torch.where(_begins(documents), before, torch.zeros_like(before)).cummax(dim=1).values


def lengths_of(positions: Ids, documents: Ids | None) -> Ids | None:
    """How long the packed text is that each token belongs to; None where nothing is packed."""
    if documents is None:
        return None
    text = _texts(documents)
    longest = torch.zeros_like(positions).scatter_reduce(1, text, positions + 1, "amax")
    return longest.gather(1, text)


def read_again(
    input_ids: Ids | None, attention_mask: Real | None, start: int | None, *, wrapped: bool
) -> tuple[Ids, Bool[Tensor, "B T"]]:
    """The source one place on, behind the token `start`, or, `wrapped`, behind its own last one; and which is real.

    Raises InputError where there is no source, or no token to start from.
    """
    if input_ids is None:
        raise InputError("the classifier reads the source twice; give input_ids.")
    real, _ = real_tokens(input_ids, attention_mask)
    if wrapped:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        begin = input_ids.gather(1, (places * real).argmax(dim=1, keepdim=True))
    elif start is not None:
        begin = torch.full_like(input_ids[:, :1], start)
    else:
        raise InputError("the config names no token for the decoder to start from; set SpecialTokens.decoder_start.")
    first = real & (count_positions(real) == 0)
    return torch.where(first, begin, input_ids.roll(1, dims=1)), real


def end_tokens(input_ids: Ids | None, real: Bool[Tensor, "B Tt"], eos: tuple[int, ...]) -> Bool[Tensor, "B Tt"]:
    """Which of the source's tokens end a text. Raises InputError for a text without one, and without a source."""
    if input_ids is None:
        raise InputError("the head reads the vector at the source's end token; give input_ids.")
    check_shape("decoder_input_ids", real, input_ids.shape)
    ends = real & torch.isin(input_ids, torch.tensor(eos, device=input_ids.device))
    lacking = (real.any(dim=1) & ~ends.any(dim=1)).nonzero()
    if len(lacking):
        raise InputError(
            f"text {int(lacking[0])} has no end token (id {eos[0]}), whose vector the head reads; "
            "encode it with its special tokens."
        )
    return ends


def prefix_columns(prefix: Int[Tensor, " B"], real: Bool[Tensor, "B T"]) -> Int[Tensor, " B"]:
    """How many columns the first `prefix` real tokens of each row take, with the padding among and before them."""
    return (count_positions(real) < prefix[:, None]).sum(dim=1)


def check_prefix(prefix: Int[Tensor, " B"] | None, batch: int) -> None:
    """Raise InputError unless the prefix is a whole number for each text."""
    if prefix is None:
        return
    whole = isinstance(prefix, Tensor) and not prefix.is_floating_point() and prefix.dtype != torch.bool
    if not whole or prefix.shape != (batch,):
        what = f"{prefix.dtype} of shape {tuple(prefix.shape)}" if isinstance(prefix, Tensor) else type(prefix).__name__
        raise InputError(f"prefix is {what}; give a tensor of {batch} whole numbers, one for each text.")


def check_documents(documents: Ids | None, real: Bool[Tensor, "B T"]) -> None:
    """Raise InputError where a document's id returns after another's: what lies between would be part of neither."""
    check_shape("documents", documents, real.shape, whole=True)
    if documents is None:
        return
    # Sorted by document, the real tokens of one lie side by side: all of one run, or the id returned.
    sorted_, order = documents.masked_fill(~real, 0).sort(dim=1, stable=True)
    runs = _texts(documents).gather(1, order)
    for row in range(len(documents)):
        at = real[row, order[row]]
        ids, run = sorted_[row, at], runs[row, at]
        returns = ((ids[1:] == ids[:-1]) & (run[1:] != run[:-1])).nonzero()
        if len(returns):
            raise InputError(
                f"document {int(ids[returns[0]])} returns in row {row} after another; "
                "give each packed text an id of its own, and its tokens side by side."
            )


def check_gaps(stack: StackConfig, real: Bool[Tensor, "B T"], documents: Ids | None = None) -> None:
    """Raise InputError for padding between the real tokens of a text, where the stack measures distance in columns."""
    what = _measures_columns(stack)
    if what is None or bool(real.all()):
        return
    positions = positions_of(real, documents)
    lengths = lengths_of(positions, documents)
    last = (lengths if lengths is not None else positions.amax(dim=1, keepdim=True) + 1) - 1
    gap = (~real & (positions >= 0) & (positions < last)).any(dim=1).nonzero()
    if len(gap):
        raise InputError(
            f"text {int(gap[0])} of the batch has padding between its tokens (those in the cache are its tokens too), "
            f"and {what} would count it as distance; pad on the left."
        )


def check_memory(memory: Float[Tensor, "B T C"], batch: int, d_model: int) -> None:
    """Raise InputError unless the memory is one source's vectors for each of `batch` targets, `d_model` wide."""
    if not isinstance(memory, Tensor) or memory.ndim != 3 or memory.shape[2] != d_model:
        shape = tuple(memory.shape) if isinstance(memory, Tensor) else type(memory).__name__
        raise InputError(f"memory is {shape}, not (batch, tokens, {d_model}); give what this model's encode() gave.")
    if memory.shape[0] != batch:
        raise InputError(
            f"the source is a batch of {memory.shape[0]} and the target a batch of {batch}; give one target a source."
        )


def _measures_columns(stack: StackConfig) -> str | None:
    """What in the stack goes by columns rather than by positions, in words; None where nothing does."""
    match stack.position:
        case ALiBi(rounded=False):
            return "ALiBi"
        case T5Bias():
            return "T5's bias"
    windowed = any(stack.attention_of(layer).window is not None for layer in range(stack.n_layers))
    return "the attention's window" if windowed else None


def _begins(documents: Ids) -> Bool[Tensor, "B T"]:
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return begins


def _texts(documents: Ids) -> Ids:
    """The number of each token's packed text in its row, counted from 0."""
    return _begins(documents).long().cumsum(dim=1) - 1
