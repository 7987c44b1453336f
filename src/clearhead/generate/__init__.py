"""Generation: a model that has learnt what comes next is asked for it, again and again.

`decode.py` is the loop, `reader.py` what it asks (any model that writes, cached or not), `sampling.py` how one id is
chosen from the logits, and `settings.py` the knobs, which check themselves.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.generate.decode import generate_ids as generate_ids
    from clearhead.generate.decode import stream_ids as stream_ids
    from clearhead.generate.settings import GenerationSettings as GenerationSettings

__getattr__, __dir__ = attach(
    __name__,
    {
        "GenerationSettings": "clearhead.generate.settings",
        "generate_ids": "clearhead.generate.decode",
        "stream_ids": "clearhead.generate.decode",
    },
)
