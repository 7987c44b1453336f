"""A model's geometry, drawn with letters: the residual stream runs down, and branches leave it and are added again.

│        the stream
◆        what stands on it: the embedding, a norm, the head
├──╮     a branch reads the stream
⊕──╯     and is added to it
"""

from __future__ import annotations

import textwrap
from itertools import zip_longest

from clearhead.model.config import (
    ALiBi,
    AttentionConfig,
    FeedForwardConfig,
    LanguageModel,
    LayerNorm,
    Learned,
    MaskedLanguageModel,
    ModelConfig,
    NoPosition,
    Norm,
    Parallel,
    Rotary,
    SentenceEmbedding,
    SequenceClassification,
    Sinusoidal,
    StackConfig,
    T5Bias,
    TokenClassification,
)

STREAM = 4
"""The column of the residual stream."""


def diagram(config: ModelConfig) -> list[str]:
    """The lines of the drawing: one stack, or the encoder and below it the decoder that reads it."""
    lines: list[str] = []
    both = config.architecture == "encoder-decoder"
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        if stack is None:
            continue
        if lines:
            lines.append("")
        source = {"encoder": "source ids", "decoder": "target ids"}[name] if both else "ids"
        lines += [_at(source), _at("│"), _node(_embedding(config, stack)), _at("│")]
        lines += _box(stack, config, name, reads_both_ways=name == "encoder")
        lines += [_at("│")]
        if stack.final_norm:
            lines += [_node(_norm(stack.norm)), _at("│")]
        if both and name == "encoder":
            lines.append(_at("╰─▸ what the decoder's cross-attention reads"))
    return [*lines, *_head(config)]


def _at(text: str) -> str:
    return " " * STREAM + text


def _node(text: str) -> str:
    return _at(f"◆  {text}")


def _box(stack: StackConfig, config: ModelConfig, name: str, *, reads_both_ways: bool) -> list[str]:
    """The block, in a frame that says how often it stands one upon the other."""
    inner = _block(stack, config, reads_both_ways=reads_both_ways)
    sets = "one set" if stack.n_blocks == 1 else f"{stack.n_blocks} sets"
    times = f" {name} block × {stack.n_layers}" + (f", {sets} of weights " if stack.share_layers else " ")
    width = max(*(len(line) for line in inner), len(times) + STREAM + 4) + 2
    top = f"╭─{'─' * (STREAM - 2)}┼──{times}"
    framed = [f"│{line[1:]:<{width - 1}}│" for line in inner]
    bottom = f"╰{'─' * (STREAM - 1)}┼"
    return [f"{top:─<{width}}╮", *framed, f"{bottom:─<{width}}╯"]


def _block(stack: StackConfig, config: ModelConfig, *, reads_both_ways: bool) -> list[str]:
    attention = _attentions(stack, config, reads_both_ways=reads_both_ways)
    feedforward = _feedforwards(stack, config)
    if isinstance(stack.residual, Parallel):
        beside = [*feedforward] if stack.residual.shared_norm else [_norm(stack.norm), *feedforward]
        return _branch([_norm(stack.norm), *attention, "and beside it", *beside])
    lines = _normed(stack, attention)
    if stack.cross_attention is not None:
        says = f"{_heads(stack.cross_attention, config)}, reads the encoder"
        lines += _normed(stack, _told("cross-attention", {says: []}))
    return lines + _normed(stack, feedforward)


def _normed(stack: StackConfig, inside: list[str]) -> list[str]:
    """A branch with its norms where the stack has them."""
    norm = _norm(stack.norm)
    before = [norm] if stack.norm_place in ("before", "both") else []
    after = [norm] if stack.norm_place in ("both", "output") else []
    lines = _branch([*before, *inside, *after])
    if stack.norm_place == "input":  # the stream itself is normed
        return [_node(norm), *lines]
    return [*lines, _node(norm)] if stack.norm_place == "after" else lines


def _branch(inside: list[str]) -> list[str]:
    return [_at("├──╮"), *(_at(f"│  {line}") for line in inside), _at("⊕──╯")]


def _norm(choice: Norm) -> str:
    return "LayerNorm" if isinstance(choice, LayerNorm) else "RMSNorm, ×(1+w)" if choice.plus_one else "RMSNorm"


def _embedding(config: ModelConfig, stack: StackConfig) -> str:
    choice = config.embedding
    width = choice.width if choice.width is not None else config.d_model
    vocab_size = config.target_vocab_size if stack is config.decoder else config.vocab_size
    parts = [f"embedding {vocab_size:,} × {width:,}"]
    if choice.scale is not None:
        parts[0] += f", times {choice.scale:.4g}"
    if choice.token_types:
        parts.append(f"{choice.token_types} token type{'s' if choice.token_types > 1 else ''}")
    if isinstance(stack.position, Learned):
        parts.append(f"learned positions {config.context:,}")
    elif isinstance(stack.position, Sinusoidal):
        parts.append("sinusoidal positions")
    text = " + ".join(parts)
    if choice.norm is not None:
        text += f", {_norm(choice.norm)}"
    plain = width == config.d_model and not choice.project
    return text if plain else f"{text}, projected to {config.d_model:,}"


def _attentions(stack: StackConfig, config: ModelConfig, *, reads_both_ways: bool) -> list[str]:
    """One line where all layers are alike; else a line for each kind, and which layers are of it."""
    told: dict[str, list[int]] = {}
    for layer in range(stack.n_layers):
        choice = stack.attention_of(layer)
        says = [_heads(choice, config), "reads both ways" if reads_both_ways else "causal"]
        if choice.window is not None:
            says.append(f"window {choice.window:,}")
        says.append(_position(stack, layer))
        if choice.qk_norm is not None:
            says.append(f"q and k normed over the {choice.qk_norm.over}")
        if choice.softcap is not None:
            says.append(f"scores capped at {choice.softcap:g}")
        if choice.sinks:
            says.append("sinks")
        told.setdefault(", ".join(filter(None, says)), []).append(layer)
    return _told("self-attention", told)


def _feedforwards(stack: StackConfig, config: ModelConfig) -> list[str]:
    told: dict[str, list[int]] = {}
    for layer in range(stack.n_layers):
        told.setdefault(_inner(stack.feedforward_of(layer), config), []).append(layer)
    return _told("feed-forward", told)


def _told(what: str, told: dict[str, list[int]]) -> list[str]:
    says = [
        text if len(told) == 1 else f"{text}; layer{'s' if len(layers) > 1 else ''} {_spans(layers)}"
        for text, layers in told.items()
    ]
    wrapped = [line for text in says for line in _wrapped(text)]
    return [f"{name:<17} {line}" for name, line in zip_longest([what], wrapped, fillvalue="")]


def _wrapped(text: str) -> list[str]:
    """Lines that keep the whole drawing within 80 columns, broken behind a comma or semicolon."""
    glued = text.replace(" ", "\u00a0").replace(",\u00a0", ", ").replace(";\u00a0", "; ")
    first, *rest = (line.replace("\u00a0", " ") for line in textwrap.wrap(glued, 50))
    return [first, *(f"  {line}" for line in rest)]


def _spans(layers: list[int]) -> str:
    """0–4, 6–10, …: what is beside one another, drawn together; a long list is cut."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][-1] + 1:
            spans[-1].append(layer)
        else:
            spans.append([layer])
    words = [str(span[0]) if len(span) == 1 else f"{span[0]}–{span[-1]}" for span in spans]
    return ", ".join(words if len(words) <= 4 else [*words[:3], "…", words[-1]])


def _heads(choice: AttentionConfig, config: ModelConfig) -> str:
    text = f"{choice.n_heads} heads × {choice.head_width(config.d_model)}"
    return (
        text
        if choice.kv_heads == choice.n_heads
        else f"{text} over {choice.kv_heads} key/value head{'s' if choice.kv_heads > 1 else ''}"
    )


def _position(stack: StackConfig, layer: int) -> str:
    rotary = stack.rotary(layer)
    if rotary is not None:
        return _rotary(rotary)
    if stack.attention_of(layer).rotary is not None or isinstance(stack.position, NoPosition):
        return "no positions"
    return {T5Bias: "relative bias", ALiBi: "ALiBi"}.get(type(stack.position), "")


def _rotary(choice: Rotary) -> str:
    text = f"rotary θ {choice.theta:,.0f}"
    if choice.fraction != 1:
        text += f" on {choice.fraction:.0%} of the width"
    if choice.scaling is not None:
        text += f", {type(choice.scaling).__name__.removesuffix('Scaling')} scaling"
    return text


def _inner(choice: FeedForwardConfig, config: ModelConfig) -> str:
    bend = choice.activation.replace("_", " ")
    return f"{config.d_model:,} → {choice.d_ff:,} → {config.d_model:,}, {bend}{', gated' if choice.gated else ''}"


def _head(config: ModelConfig) -> list[str]:
    """What the last vectors become."""
    lines = [_node(f"pooler, {config.pooler} over the first token"), _at("│")] if config.pooler is not None else []
    match config.head:
        case LanguageModel(tied=tied):
            says = f"language model, {config.target_vocab_size:,} logits" + (", tied to the embedding" if tied else "")
        case MaskedLanguageModel(tied=tied):
            says = f"masked language model, {config.vocab_size:,} logits" + (", tied to the embedding" if tied else "")
        case SequenceClassification(labels=labels):
            says = f"one of {len(labels)} labels for the text: {_few(labels)}"
        case TokenClassification(labels=labels):
            says = f"one of {len(labels)} labels for each token: {_few(labels)}"
        case SentenceEmbedding(pooling=pooling, normalise=normalise):
            says = f"sentence embedding, {pooling} of the tokens" + (", of length 1" if normalise else "")
        case None:
            says = f"vectors, {config.d_model:,} wide"
    return [*lines, _node(says)]


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(labels if len(labels) <= 4 else [*labels[:3], "…"])
