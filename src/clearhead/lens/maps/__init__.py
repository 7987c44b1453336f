"""Maps. One head's weights over one text, and what is read off them without ever having them all.

Read in this order: `softmax.py` (from q, k and log-sum-exp to weights), `attention_map.py` (which behaves like an
array), `derived.py` and what streams over it: `strongest.py`, `pooling.py`, `histogram.py`; `receipts.py` (proof that
what is shown is what ran); `growing.py` (the map of a text that is being written).
"""
