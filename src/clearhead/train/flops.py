"""What a token costs. How well a device is used is told by counting what it must multiply, and looking at the clock.

Each weight of a matrix is multiplied by once on the way forward, which is 2 floating-point operations: times, and plus.
On the way back it takes 2 more to lead the gradient through it, and 2 for its own gradient: 6·N where everything is
trained (Kaplan et al. 2020). Of frozen weights it is less: they have no gradient of their own, and it is led back only
as far as the first weight that is trained. So LoRA in every block costs 4·N, and a head on frozen blocks hardly more
than 2·N. What attention multiplies beside its weights, 12·C·T a layer where all is trained, goes alike (Chowdhery et
al. 2022, appendix B); half of it where a query reads only what came before.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from clearhead.model.block import Block
from clearhead.model.heads import LanguageModelHead, MaskedLanguageModelHead, TokenClassificationHead
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one token. weights: what it is multiplied by; passed: those that a gradient is led through; trained: those
    that have one of their own. width: C of all attentions together, for each token that is read; width_passed: of those
    that a gradient is led through."""

    weights: float = 0.0
    passed: float = 0.0
    trained: float = 0.0
    width: float = 0.0
    width_passed: float = 0.0

    def of(self, length: float | int) -> float:
        """Floating-point operations, forward and back, of a token in a text of `length` tokens."""
        return 2 * (self.weights + self.passed + self.trained) + 4 * length * (self.width + 2 * self.width_passed)


def cost_of(model: nn.Module) -> Cost | None:
    """What a token costs this model as it is trained now: which weights are frozen is asked of the weights.

    The output matrix counts, a tied one too; tables that are only looked up do not, nor does what a head reads once a
    text. A token of an encoder-decoder passes one of its two stacks: it is half of both. None for recurrent models,
    whose cells are no matrices of ours.
    """
    if not isinstance(model, Encoder | Decoder | EncoderDecoder):
        return None
    stacks = [each for each in (getattr(model, "encoder", None), getattr(model, "decoder", None)) if each is not None]
    total = dict.fromkeys(("weights", "passed", "trained", "width", "width_passed"), 0.0)
    led_back = False
    for stack in stacks:
        layers = stack.config.n_layers / stack.config.n_blocks  # how often each block runs
        for part, times in [(stack.embedding, 1.0), *((block, layers) for block in stack.blocks)]:
            led_back = led_back or any(parameter.requires_grad for parameter in part.parameters())
            _add(total, part, times / len(stacks), led_back, causal=not stack.bidirectional)
    head = model.head
    if isinstance(head, LanguageModelHead | MaskedLanguageModelHead | TokenClassificationHead):
        _add(total, head, 1 / len(stacks), led_back)
        if not isinstance(head, TokenClassificationHead):
            table = stacks[-1].embedding.tokens.weight if head.weight is None else head.weight
            size = table.numel() / len(stacks)
            total["weights"] += size
            total["passed"] += size * led_back
            total["trained"] += size * table.requires_grad
    return Cost(**total)


def _add(total: dict[str, float], part: nn.Module, times: float, led_back: bool, *, causal: bool = False) -> None:
    """Count the linear maps of a part of the model, and its attentions. led_back: it is trained, or one before it."""
    for module in part.modules():
        if isinstance(module, nn.Linear):
            for weight in module.parameters(recurse=False):  # LoRA's companions are two more
                if weight.ndim == 2:
                    total["weights"] += times * weight.numel()
                    total["passed"] += times * weight.numel() * led_back
                    total["trained"] += times * weight.numel() * weight.requires_grad
    if isinstance(part, Block):
        for attention in (part.attention, part.cross_attention):
            if attention is not None:
                reads = 0.5 if causal and attention is part.attention else 1.0
                width = times * reads * attention.o_proj.in_features
                total["width"] += width
                total["width_passed"] += width * led_back
