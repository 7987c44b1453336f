"""Checks. What a config asks of its own values, each refusal in one line that says what to choose instead."""

from __future__ import annotations

import sys

from clearhead.errors import ConfigError

LARGEST = 2**40
"""No count in a config may pass this; sizes are multiplied before anything is allocated."""


MOST = sys.float_info.max
"""No number in a config may pass this, whole ones included: all of them are reckoned with as floats."""


def brief(value: object) -> str:
    """A value as a message shows it: on part of a line, however long it is."""
    if isinstance(value, int) and abs(value) >= 10**24:
        return f"a number of {int(value.bit_length() * 0.30103) + 1} digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def check_counts(owner: object, *names: str, at_least: int = 1, at_most: int = LARGEST) -> None:
    """Each named value, where it is not None, is a whole number in the range."""
    for name in names:
        value = getattr(owner, name)
        if value is None:
            continue
        where = f"{type(owner).__name__}.{name}"
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{where}={brief(value)} is not a whole number; give an int.")
        if not at_least <= value <= at_most:
            range_ = f"{at_least}…{at_most}"
            raise ConfigError(f"{where}={brief(value)} lies outside {range_}; choose a value in that range.")


def check_numbers(owner: object, *names: str, above: float = 0.0, inclusive: bool = False) -> None:
    """Each named value, where it is not None, is a finite number above the bound (or at it, where inclusive)."""
    for name in names:
        value = getattr(owner, name)
        if value is None:
            continue
        where = f"{type(owner).__name__}.{name}"
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= MOST:
            raise ConfigError(f"{where}={brief(value)} is not a finite number; give a float.")
        if value < above or (value == above and not inclusive):
            bound = "at least" if inclusive else "above"
            raise ConfigError(f"{where}={brief(value)} must be {bound} {above}; choose a larger value.")


def check_choice(owner: object, name: str, choices: tuple[str, ...]) -> None:
    """The named value is one of the choices."""
    value = getattr(owner, name)
    if value not in choices:
        where = f"{type(owner).__name__}.{name}"
        raise ConfigError(f"{where}={brief(value)} is not a choice; choose one of {', '.join(choices)}.")


def check_dropout(owner: object, *names: str) -> None:
    """Each named value is a probability below 1."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
            where = f"{type(owner).__name__}.{name}"
            raise ConfigError(f"{where}={brief(value)} is no probability below 1; choose 0.0 ≤ {name} < 1.0.")
