"""Refusals. Which models of transformers cannot be watched, and what to do instead; nothing is changed before."""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Any

from clearhead.errors import LensError, NotWatchableError


def refuse_what_does_not_dispatch(model: Any) -> None:
    """Raise NotWatchableError for a model whose attention never asks the interface."""
    kind = type(model).__name__
    if not hasattr(model, "set_attn_implementation") or not hasattr(model, "config"):
        raise NotWatchableError(
            f"{kind} is a part of a transformers model, or of a transformers older than 5.0; watch the whole model."
        )
    modules = {type(m).__module__ for m in model.modules() if type(m).__module__.startswith("transformers.models.")}
    if modules and not any(hasattr(sys.modules.get(name), "ALL_ATTENTION_FUNCTIONS") for name in modules):
        raise NotWatchableError(f"{kind} computes its attention by itself and cannot be watched; {way_out(model)}")
    if not model._can_set_attn_implementation():
        raise NotWatchableError(f"{kind} does not let its attention be chosen and cannot be watched; {way_out(model)}")


def way_out(model: Any) -> str:
    """What else can be done: our own model of the family, where there is one; else the weights, written out."""
    family = str(getattr(model.config, "model_type", "") or "")
    name = str(getattr(model, "name_or_path", "") or "")
    # Rooms beside each other do not import each other, and a family is a file of its name: to look is enough.
    if family.isidentifier() and files("clearhead").joinpath("checkpoint", "families", f"{family}.py").is_file():
        return f"clearhead has the family: watch what clearhead.load({name or 'its folder'!r}) gives, `.model`."
    return (
        "clearhead has no family of this kind; for short texts transformers writes the weights out, T×T of them, with "
        'attn_implementation="eager" and output_attentions=True.'
    )


def refuse_checkpointing(model: Any) -> None:
    """Raise NotWatchableError for a model that is trained and runs its layers twice."""
    if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise NotWatchableError(
            f"{type(model).__name__} trains with gradient checkpointing, which runs every layer again for gradients; "
            "switch that off, or call model.eval(), while watching."
        )


def refuse_output_attentions(model: Any, given: dict[str, Any]) -> None:
    """Raise LensError for a pass that asks for the weights written out: the fused kernel makes none."""
    asked = given.get("output_attentions")
    if asked if asked is not None else getattr(model.config, "output_attentions", False):
        raise LensError(
            "output_attentions=True asks for weights that the fused kernel never writes down; leave it out while "
            "watching, and read seen.map(layer, head)."
        )
