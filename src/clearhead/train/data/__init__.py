"""Data: from files to rows of ids, and which of them a step reads. No torch here.

Read in this order: `rows.py`, `texts.py`, `columns.py` and `tables.py` (files to rows, through `files.py`), `dates.py`
and `handbook.py` (data that needs no file of yours), `encoding.py`, `encoders.py` and `chat.py` (a row to ids),
`cache.py` (ids on disk, mapped), `prepare.py`, `hashes.py` and `tokenise.py` (making it, once, in parallel),
`packing.py` (what is one row to the model), `as_given.py` (back from there to the files' own texts), `order.py` (which
rows a step reads), `stream.py` (data too large to look at twice). `readers.py` has the names of all readers of files,
`encoders.py` those of all encoders.
"""
