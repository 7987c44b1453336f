"""The lens: every weight of every head, exact, derived from what the kernel that ran had in its hands.

    watch.py, look.py    keep what each attention call saw, of any model (`huggingface/`: of transformers' too)
    seen.py, kept/       what was kept: q, k and log-sum-exp, where they live, and how scores were formed
    maps/                AttentionMap, and all that is read off it without ever having all of it
    measures/, roles/    what heads do, in numbers; which of them have a habit that has a name
    whatif/              what a head would read, and what a model would say, if something were otherwise
    ways_out/            arrays, archives, tables, pictures, notebooks

`clearhead.watch` and `clearhead.look` are the two functions that a user calls.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.lens.kept.keep import AsRun as AsRun
    from clearhead.lens.kept.keep import Half as Half
    from clearhead.lens.kept.keep import Spilled as Spilled
    from clearhead.lens.look import Look as Look
    from clearhead.lens.maps.attention_map import AttentionMap as AttentionMap
    from clearhead.lens.maps.attention_map import Cell as Cell
    from clearhead.lens.maps.growing import GrowingMap as GrowingMap
    from clearhead.lens.maps.histogram import Histogram as Histogram
    from clearhead.lens.maps.histogram import linear_edges as linear_edges
    from clearhead.lens.maps.histogram import log_edges as log_edges
    from clearhead.lens.maps.pooling import Overview as Overview
    from clearhead.lens.maps.receipts import Receipt as Receipt
    from clearhead.lens.maps.receipts import Receipts as Receipts
    from clearhead.lens.maps.strongest import TopRows as TopRows
    from clearhead.lens.seen import Link as Link
    from clearhead.lens.seen import Seen as Seen
    from clearhead.lens.ways_out.archive import read_npz as read_npz
    from clearhead.lens.ways_out.archive import write_npz as write_npz
    from clearhead.lens.ways_out.pictures import write_picture as write_picture
    from clearhead.lens.ways_out.tables import write_parquet as write_parquet

__getattr__, __dir__ = attach(
    __name__,
    {
        "AsRun": "clearhead.lens.kept.keep",
        "AttentionMap": "clearhead.lens.maps.attention_map",
        "Cell": "clearhead.lens.maps.attention_map",
        "GrowingMap": "clearhead.lens.maps.growing",
        "Half": "clearhead.lens.kept.keep",
        "Histogram": "clearhead.lens.maps.histogram",
        "Link": "clearhead.lens.seen",
        "Look": "clearhead.lens.look",
        "Overview": "clearhead.lens.maps.pooling",
        "Receipt": "clearhead.lens.maps.receipts",
        "Receipts": "clearhead.lens.maps.receipts",
        "Seen": "clearhead.lens.seen",
        "Spilled": "clearhead.lens.kept.keep",
        "TopRows": "clearhead.lens.maps.strongest",
        "linear_edges": "clearhead.lens.maps.histogram",
        "log_edges": "clearhead.lens.maps.histogram",
        "read_npz": "clearhead.lens.ways_out.archive",
        "write_npz": "clearhead.lens.ways_out.archive",
        "write_parquet": "clearhead.lens.ways_out.tables",
        "write_picture": "clearhead.lens.ways_out.pictures",
    },
)
