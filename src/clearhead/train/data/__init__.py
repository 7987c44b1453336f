"""Data: from files to rows of ids, and which of them a step reads. No torch here.

Read in this order: `readers.py` and `tables.py` (files to rows, through `files.py`), `encoders.py` and `chat.py` (a row
to ids), `cache.py` (ids on disk, mapped), `prepare.py` and `tokenise.py` (making it, once, in parallel), `packing.py`
(what is one row to the model), `order.py` (which rows a step reads), `stream.py` (data too large to look at twice).
"""
