"""The lens: every weight of every head, exact, derived from what the kernel that ran had in its hands.

`watch.py` keeps q, k and the log-sum-exp of each attention call (`huggingface.py` does so for transformers' models);
`seen.py` is what was kept; `attention_map.py` turns it into weights; `look.py` puts the words beside them.
`clearhead.watch` and `clearhead.look` are the two functions that a user calls.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.lens.attention_map import AttentionMap as AttentionMap
    from clearhead.lens.attention_map import Cell as Cell
    from clearhead.lens.look import Look as Look
    from clearhead.lens.seen import Link as Link
    from clearhead.lens.seen import Seen as Seen

__getattr__, __dir__ = attach(
    __name__,
    {
        "AttentionMap": "clearhead.lens.attention_map",
        "Cell": "clearhead.lens.attention_map",
        "Link": "clearhead.lens.seen",
        "Look": "clearhead.lens.look",
        "Seen": "clearhead.lens.seen",
    },
)
