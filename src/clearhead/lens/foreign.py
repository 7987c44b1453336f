"""Foreign. Whether a model is transformers', and which part of a module that wraps one it is."""

from __future__ import annotations

from torch import nn

from clearhead.errors import NotWatchableError


def is_of(model: nn.Module, package: str, name: str | None = None) -> bool:
    """Whether its class, or one that this goes back to, is of that package, and has that name."""
    return any(b.__module__.startswith(package) and name in (None, b.__name__) for b in type(model).__mro__)


def whole_transformers(model: nn.Module, name: str = "") -> dict[str, nn.Module]:
    """The whole models of transformers in a module that wraps one, by where they are: itself, where it is one."""
    if is_of(model, "transformers.", "PreTrainedModel"):
        return {name: model}
    prefix = f"{name}." if name else ""
    return {
        at: found for n, part in model.named_children() for at, found in whole_transformers(part, prefix + n).items()
    }


def only_transformers(model: nn.Module, what: str = "watch") -> nn.Module | None:
    """The one model of transformers that this is, or holds; None for a model of another kind.

    Raises NotWatchableError where there are several.
    """
    theirs = whole_transformers(model)
    if len(theirs) > 1:
        raise NotWatchableError(
            f"{type(model).__name__} holds {len(theirs)} models of transformers, whose layers could not be told apart; "
            f"{what} one of them: .{', .'.join(theirs)}."
        )
    if theirs or is_of(model, "transformers."):
        return next(iter(theirs.values()), model)
    return None
