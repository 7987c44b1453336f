"""The families, one file each, by `model_type`. A new file in this folder is a new family; nothing else names it,
unless many tools read it: see PLAIN."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from clearhead.checkpoint.config_rules import shown
from clearhead.checkpoint.family import Family
from clearhead.errors import UnknownFamilyError

PLAIN = ("gpt2", "llama", "mistral", "bert", "roberta", "t5", "bart")
"""What a model that was built from scratch is exported as, where it fits, before any family that it fits as well."""


@cache
def families() -> dict[str, Family]:
    """Every family that has a file here, by its `model_type`."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        for family in importlib.import_module(f"{__name__}.{module.name}").FAMILIES:
            found[family.model_type] = family
    return found


def plainest_first() -> list[Family]:
    """Every family, those that most tools read first, the rest by name: the same order on every machine."""
    order = {name: place for place, name in enumerate(PLAIN)}
    return sorted(families().values(), key=lambda family: (order.get(family.model_type, len(PLAIN)), family.model_type))


def family(model_type: object, where: str) -> Family:
    """The family of this `model_type`. Raises UnknownFamilyError for one that has no file here."""
    found = families().get(model_type) if isinstance(model_type, str) else None
    if found is None:
        known = ", ".join(sorted(families()))
        raise UnknownFamilyError(f"{where}: model_type={shown(model_type)} is no family that we read; we have {known}.")
    return found
