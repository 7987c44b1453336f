"""Places. A dotted path into the nested, frozen ModelConfig, so that a row of a table can say where its value lives.

decoder.attention.n_heads       one value
decoder.attention[].window      a tuple of values, one for each layer
head.norm.eps?                  a value that only some choices have; elsewhere the row says nothing
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from clearhead.model.config import AttentionConfig, ModelConfig, StackConfig

Places = dict[str, Any]

NOWHERE = object()
"""What `get` gives for a place that the config does not have."""


def get(config: ModelConfig, place: str) -> Any:
    """The value at a place, or NOWHERE. In a stack whose layers differ, a place without [] is the first layer's."""
    node: Any = config
    for name in place.removesuffix("?").split("."):
        if name.endswith("[]"):
            layers = getattr(node, name[:-2], NOWHERE)
            node = layers if isinstance(layers, tuple) else (layers,) * getattr(node, "n_layers", 1)
        elif isinstance(node, tuple) and node and "[]" in place:
            node = tuple(getattr(layer, name, NOWHERE) for layer in node)
        else:
            if isinstance(node, tuple) and node:
                node = node[0]
            node = getattr(node, name, NOWHERE) if is_dataclass(node) else NOWHERE
    return node


def fill(template: ModelConfig, places: Mapping[str, Any]) -> ModelConfig:
    """The template with the values of all places put in, built from the leaves up, so that it is checked once, whole.

    Raises ConfigError where the values contradict each other.
    """
    sure = {place: value for place, value in places.items() if not place.endswith("?")}
    config = collapse(_filled(template, _tree(sure)))
    for place, value in places.items():
        if place.endswith("?") and get(config, place) is not NOWHERE:
            config = _filled(config, _tree({place[:-1]: value}))
    assert isinstance(config, ModelConfig)
    return config


def _tree(places: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of the places' parts; a value stands under ""; what differs by layer under "[]"."""
    root: dict[str, Any] = {}
    for place, value in places.items():
        node = root
        for name in place.replace("[]", ".[]").split("."):
            node = node.setdefault(name, {})
        node[""] = value
    return root


def _filled(node: Any, tree: Mapping[str, Any]) -> Any:
    if "" in tree:
        node = tree[""]
    below = [name for name in tree if name not in ("", "[]")]
    if below and isinstance(node, tuple):
        node = tuple(_filled(layer, {name: tree[name] for name in below}) for layer in node)
    elif below:
        node = replace(node, **{name: _filled(getattr(node, name), tree[name]) for name in below})
    if "[]" in tree:
        columns = {name: column[""] for name, column in tree["[]"].items()}
        rows = zip(*columns.values(), strict=True)
        node = tuple(replace(node, **dict(zip(columns, row, strict=True))) for row in rows)
    return node


def _collapsed(stack: StackConfig | None, change: Callable[[Any], Any]) -> StackConfig | None:
    if stack is None:
        return None
    described: dict[str, Any] = {}
    for name in ("attention", "feedforward"):
        layers = getattr(stack, name)
        layers = tuple(map(change, layers if isinstance(layers, tuple) else (layers,)))
        described[name] = layers[0] if all(layer == layers[0] for layer in layers) else layers
    cross = change(stack.cross_attention) if stack.cross_attention is not None else None
    return replace(stack, cross_attention=cross, **described)


def collapse(config: ModelConfig, change: Callable[[Any], Any] = lambda layer: layer) -> ModelConfig:
    """The same model, where layers that are all alike are described once; `change` is done to each layer first."""
    return replace(config, encoder=_collapsed(config.encoder, change), decoder=_collapsed(config.decoder, change))


def spelled_out(config: ModelConfig) -> ModelConfig:
    """The same model, where what may be left to be derived is said, so that equal models have equal configs."""
    width = config.embedding.width if config.embedding.width is not None else config.d_model
    projects = config.embedding.project or width != config.d_model
    embedding = replace(config.embedding, width=width, project=projects)
    return collapse(
        replace(config, embedding=embedding, decoder_vocab_size=config.target_vocab_size),
        partial(_said, config.d_model),
    )


def _said(d_model: int, layer: Any) -> Any:
    if not isinstance(layer, AttentionConfig):
        return layer
    width = layer.head_width(d_model)
    scale = layer.scale if layer.scale is not None else width**-0.5
    return replace(layer, n_kv_heads=layer.kv_heads, d_head=width, scale=scale)


def differences(ours: Any, theirs: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place where two configs differ, with the two values."""
    if is_dataclass(ours) and type(ours) is type(theirs):
        for field in fields(ours):
            below = f"{place}.{field.name}" if place else field.name
            yield from differences(getattr(ours, field.name), getattr(theirs, field.name), below)
    elif isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{place}[{index}]")
    elif ours != theirs:
        yield place, ours, theirs
