"""The model: one readable Transformer, three architectures from one block. torch, and nothing else of the house.

Read in this order: `attention.py` and `kernels.py` (the equation), `block.py`, `stack.py`, `transformer.py`; then what
they are made of: `config/`, `norms.py`, `positions.py`, `masks.py`, `feedforward.py`, `embedding.py`, `heads.py`.

Shapes: B batch, T tokens (Tq queries, Tk keys), C model width, H heads, Hkv key/value heads, D head width,
F feed-forward width, V vocabulary.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.model.cache import Cache as Cache
    from clearhead.model.config import ModelConfig as ModelConfig
    from clearhead.model.config import StackConfig as StackConfig
    from clearhead.model.kernels import attention_weights as attention_weights
    from clearhead.model.masks import Mask as Mask
    from clearhead.model.transformer import Decoder as Decoder
    from clearhead.model.transformer import Encoder as Encoder
    from clearhead.model.transformer import EncoderDecoder as EncoderDecoder
    from clearhead.model.transformer import Output as Output
    from clearhead.model.transformer import build as build
    from clearhead.model.transformer import skeleton as skeleton

__getattr__, __dir__ = attach(
    __name__,
    {
        "Cache": "clearhead.model.cache",
        "Decoder": "clearhead.model.transformer",
        "Encoder": "clearhead.model.transformer",
        "EncoderDecoder": "clearhead.model.transformer",
        "Mask": "clearhead.model.masks",
        "ModelConfig": "clearhead.model.config",
        "Output": "clearhead.model.transformer",
        "StackConfig": "clearhead.model.config",
        "attention_weights": "clearhead.model.kernels",
        "build": "clearhead.model.transformer",
        "skeleton": "clearhead.model.transformer",
    },
)
