"""Training: from text to a model, resumable at any instant.

`data/` turns files into rows of ids, `objectives/` rows into batches; `loop.py` takes the steps, `state.py` keeps them
on disk, whole or not at all; `recipe.py` reads how to train from a TOML file. `clearhead train` is the door.
"""
