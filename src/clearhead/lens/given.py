"""Given. What is handed to the lens is looked at where it is handed over: the wrong thing is told in one line."""

from __future__ import annotations

from os import PathLike

from torch import nn

from clearhead.errors import InputError


def check_readable(lm: object) -> None:
    """Raise InputError unless it is a model with its tokenizer, as `clearhead.load` gives it."""
    if isinstance(lm, str | PathLike):
        raise InputError(f"{str(lm)!r} is a name; load the model first: clearhead.load({str(lm)!r}).")
    if isinstance(getattr(lm, "model", None), nn.Module) and hasattr(lm, "tokenizer"):
        return
    if isinstance(lm, nn.Module):
        raise InputError(
            f"{type(lm).__name__} is a bare model, without a tokenizer; give what clearhead.load gives, or watch the "
            "model while it reads ids: `with clearhead.watch(model) as seen: model(ids)`."
        )
    raise InputError(f"{sort_of(lm)} is no model that reads texts; give what clearhead.load gives.")


def check_module(model: object) -> None:
    """Raise InputError unless it is a model that runs: a torch module."""
    if isinstance(model, nn.Module):
        return
    if isinstance(model, str | PathLike):
        raise InputError(f"{str(model)!r} is a name; load the model first: clearhead.load({str(model)!r}).model.")
    if isinstance(getattr(model, "model", None), nn.Module):
        raise InputError(f"{type(model).__name__} is a model with its tokenizer; give the model alone, its `.model`.")
    raise InputError(
        f"{sort_of(model)} is no model; give a torch module, such as the `.model` of what clearhead.load gives."
    )


def described(thing: object) -> str:
    """What was given instead, and, where we know it, how to come from there to a look."""
    if isinstance(thing, str | PathLike):
        return f"{str(thing)!r} is a name"
    if isinstance(getattr(thing, "model", None), nn.Module):
        return f"{sort_of(thing)} has not been looked at yet: clearhead.look(lm, text)"
    if isinstance(thing, nn.Module):
        return f"{sort_of(thing)} has not been watched yet: `with clearhead.watch(model) as seen: model(ids)`"
    return f"{sort_of(thing)} is none"


def sort_of(thing: object) -> str:
    """What sort of thing it is, as the subject of a sentence."""
    if thing is None:
        return "None"
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a value of type {type(thing).__name__}"
