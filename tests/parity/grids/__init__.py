"""The grids, one file a family: which random tiny models of transformers the parity tests draw. Found by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from hypothesis import strategies as st
from torch import Tensor

PADS = ("none", "left", "right")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One `model_type`: what its configs may be, and what transformers does otherwise than we, if anything.

    configs: random tiny configs, over every flag of the family. classes: the classes of transformers by a short name;
    the first is the one that is recorded. small: the config of the recorded model. options: what a class is built with.
    alone: transformers reads each text by itself, where it reads another result in company (positions that count
    padding, angles that depend on the longest text). cached: whether its cache gives what it gives without one.
    pads: where padding may stand for a class. spare: tensors that nothing reads. inputs: what transformers is called
    with besides, from the config and which tokens are real; by default the positions, where the class takes them.
    older: whether transformers 4.57 takes such a config at all, which it says in so many words where it does not.
    """

    family: str
    configs: st.SearchStrategy[Any]
    classes: Mapping[str, Any]
    small: Callable[[], Any]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alone: Callable[[Any], bool] = lambda config: False
    cached: Callable[[Any], bool] = lambda config: True
    pads: Callable[[str], tuple[str, ...]] = lambda kind: PADS
    spare: Callable[[Any, str], tuple[str, ...]] = lambda config, kind: ()
    inputs: Callable[[Any, Tensor], dict[str, Tensor]] | None = None
    older: Callable[[Any], bool] = lambda config: True
    examples: int = 20

    @property
    def writes(self) -> str | None:
        """The short name of the class that generates text, if there is one."""
        return next((kind for kind in self.classes if kind in ("lm", "seq2seq")), None)


def grids() -> dict[str, Grid]:
    """Every grid, by family."""
    found: dict[str, Grid] = {}
    for module in iter_modules(__path__, f"{__name__}."):
        found |= {grid.family: grid for grid in import_module(module.name).GRIDS}
    return found
