"""The lens: every weight of every head, exact, derived from what the kernel that ran had in its hands.

`watch` keeps q, k and the log-sum-exp of each attention call (`watch.py`; `huggingface.py` for transformers' models);
`seen.py` is what was kept; `attention_map.py` turns it into weights; `look.py` puts the words beside them.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.lens.attention_map import AttentionMap as AttentionMap
    from clearhead.lens.attention_map import Cell as Cell
    from clearhead.lens.look import Look as Look
    from clearhead.lens.look import look as look
    from clearhead.lens.seen import Link as Link
    from clearhead.lens.seen import Seen as Seen
    from clearhead.lens.watch import watch as watch

__getattr__, __dir__ = attach(
    __name__,
    {
        "AttentionMap": "clearhead.lens.attention_map",
        "Cell": "clearhead.lens.attention_map",
        "Link": "clearhead.lens.seen",
        "Look": "clearhead.lens.look",
        "Seen": "clearhead.lens.seen",
        "look": "clearhead.lens.look",
        "watch": "clearhead.lens.watch",
    },
)
