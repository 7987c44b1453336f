"""Ways out. What was seen as arrays and archives (`archive.py`), tables (`tables.py`), pictures (`pictures.py`, in the
`colours.py`, `shades.py` and `glyphs.py` they are painted with) and in notebooks (`notebook.py`); `outputs.py` writes a
file whole or not at all, `chosen.py` says which maps are meant.
"""
