"""Index. A layer, a head or a token goes by a whole number; whatever else is given is said, and not compared."""

from __future__ import annotations

import operator

from clearhead.errors import OutsideError


def index(value: object, what: str) -> int:
    """The whole number that a value is. Raises OutsideError for another, calling it `what` ("a layer")."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OutsideError(f"{what} goes by a whole number, not by {type(value).__name__}.") from None
