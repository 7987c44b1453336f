"""The lens: every weight of every head, exact, derived from what the kernel that ran had in its hands.

`watch.py` keeps q, k and the log-sum-exp of each attention call (`huggingface/` does so for transformers' models);
`keep.py` is where that lives, `seen.py` what was kept; `attention_map.py` turns it into weights, `receipts.py` proves
them; `look.py` puts the words beside them.
`write_picture`, `write_parquet` and `write_npz` are the ways out; `clearhead.watch` and `clearhead.look` are the two
functions that a user calls.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.lens.archive import read_npz as read_npz
    from clearhead.lens.archive import write_npz as write_npz
    from clearhead.lens.attention_map import AttentionMap as AttentionMap
    from clearhead.lens.attention_map import Cell as Cell
    from clearhead.lens.growing import GrowingMap as GrowingMap
    from clearhead.lens.histogram import Histogram as Histogram
    from clearhead.lens.histogram import linear_edges as linear_edges
    from clearhead.lens.histogram import log_edges as log_edges
    from clearhead.lens.keep import AsRun as AsRun
    from clearhead.lens.keep import Half as Half
    from clearhead.lens.keep import Spilled as Spilled
    from clearhead.lens.look import Look as Look
    from clearhead.lens.pictures import write_picture as write_picture
    from clearhead.lens.pooling import Overview as Overview
    from clearhead.lens.receipts import Receipt as Receipt
    from clearhead.lens.receipts import Receipts as Receipts
    from clearhead.lens.seen import Link as Link
    from clearhead.lens.seen import Seen as Seen
    from clearhead.lens.strongest import TopRows as TopRows
    from clearhead.lens.tables import write_parquet as write_parquet

__getattr__, __dir__ = attach(
    __name__,
    {
        "AsRun": "clearhead.lens.keep",
        "AttentionMap": "clearhead.lens.attention_map",
        "Cell": "clearhead.lens.attention_map",
        "GrowingMap": "clearhead.lens.growing",
        "Half": "clearhead.lens.keep",
        "Histogram": "clearhead.lens.histogram",
        "Link": "clearhead.lens.seen",
        "Look": "clearhead.lens.look",
        "Overview": "clearhead.lens.pooling",
        "Receipt": "clearhead.lens.receipts",
        "Receipts": "clearhead.lens.receipts",
        "Seen": "clearhead.lens.seen",
        "Spilled": "clearhead.lens.keep",
        "TopRows": "clearhead.lens.strongest",
        "linear_edges": "clearhead.lens.histogram",
        "log_edges": "clearhead.lens.histogram",
        "read_npz": "clearhead.lens.archive",
        "write_npz": "clearhead.lens.archive",
        "write_parquet": "clearhead.lens.tables",
        "write_picture": "clearhead.lens.pictures",
    },
)
