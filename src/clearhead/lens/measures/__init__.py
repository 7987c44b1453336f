"""Measures. `heads.py` says in numbers what a head does, `values.py` what it moves, `rollout.py` what reaches where
through all layers, `families.py` which heads read alike.
"""
