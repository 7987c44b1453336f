"""Index. A layer, a head or a token goes by a whole number; whatever else is given is said, and not compared."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
from jaxtyping import Int
from torch import Tensor

from clearhead.errors import OutsideError


def index(value: object, what: str) -> int:
    """The whole number that a value is. Raises OutsideError for another, calling it `what` ("a layer")."""
    if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        raise OutsideError(f"{what} goes by a whole number, not by True or False.")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OutsideError(f"{what} goes by a whole number, not by {type(value).__name__}.") from None


def indices(values: Iterable[object], what: str) -> list[int]:
    """The whole numbers in a list. Raises OutsideError where it is no list, or one of them is another thing."""
    try:
        each = list(values)
    except TypeError:
        raise OutsideError(
            f"a list of whole numbers is asked for, [{values!r}], not {type(values).__name__}."
        ) from None
    return [index(value, what) for value in each]


def within(values: Int[Tensor, " n"] | Iterable[object], size: int, what: str) -> Int[Tensor, " n"]:
    """The same indices as a tensor, all of them in 0…size − 1. Raises OutsideError for one that is not."""
    if not isinstance(values, Tensor) or values.is_floating_point() or values.dtype == torch.bool or values.ndim != 1:
        values = torch.tensor(indices(values, what), dtype=torch.long)
    if len(values) and (int(values.min()) < 0 or int(values.max()) >= size):
        raise OutsideError(f"{what} lies outside, at {int(values.min())}…{int(values.max())}; choose 0…{size - 1}.")
    return values
