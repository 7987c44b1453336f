"""What is kept. `keep.py` says where q and k live and of which heads, `call.py` holds one run of one layer's attention;
`runs.py` and `placed.py` join the calls of a text that was read piece by piece.
"""
