"""Sizes, before anything is allocated: what a config asks for, against what its files hold."""

from __future__ import annotations

from clearhead.errors import UnsafeFileError
from clearhead.model.config import AttentionConfig, FeedForwardConfig, Learned, ModelConfig, StackConfig


def at_least(config: ModelConfig) -> int:
    """A lower bound of the model's parameters: its tables and matrices, without norms, biases and heads."""
    total = config.vocab_size * config.table_width + config.embedding.token_types * config.sum_width
    if config.architecture == "encoder-decoder" and not config.shared_embedding:
        total += config.target_vocab_size * config.table_width
    for stack in config.stacks:
        if isinstance(stack.position, Learned):
            total += (config.context + stack.position.offset) * config.sum_width
        total += _blocks(stack, config.d_model)
    return total


def _blocks(stack: StackConfig, d_model: int) -> int:
    cross = _attention(stack.cross_attention, d_model) if stack.cross_attention is not None else 0
    return sum(
        _attention(stack.attention_of(layer), d_model) + _feedforward(stack.feedforward_of(layer), d_model) + cross
        for layer in range(stack.n_blocks)
    )


def _attention(choice: AttentionConfig, d_model: int) -> int:
    return 2 * d_model * choice.head_width(d_model) * (choice.n_heads + choice.kv_heads)


def _feedforward(choice: FeedForwardConfig, d_model: int) -> int:
    return d_model * choice.d_ff * (3 if choice.gated else 2)


def check_sizes(config: ModelConfig, numbers: int, tensors: int, where: str) -> None:
    """Raise UnsafeFileError where the config asks for more than `numbers` numbers in `tensors` tensors can give."""
    needed = at_least(config)
    if needed > numbers:
        raise UnsafeFileError(
            f"{where} describes a model of {_rounded(needed)} parameters or more, and the weights hold "
            f"{_rounded(numbers)}; the two do not belong together."
        )
    layers = sum(stack.n_blocks for stack in config.stacks)
    if layers > tensors:
        raise UnsafeFileError(
            f"{where} describes {layers:,} layers, and the weights are {tensors:,} tensors; "
            "the two do not belong together."
        )


def _rounded(count: int) -> str:
    for unit, size in (("·10¹²", 10**12), (" billion", 10**9), (" million", 10**6)):
        if count >= size:
            return f"{count / size:,.3g}{unit}" if count < 10**18 else "more than 10¹⁸"
    return f"{count:,}"
