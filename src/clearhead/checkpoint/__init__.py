"""Checkpoints: models that others trained, read and written back, exactly. model and text, nothing else of us.

A family (GPT-2, BERT, Llama …) is two tables of rows that read both ways: one for its config, one for its weights.
The same table loads and exports, and every foreign key and tensor is accounted for: read, ignored by name with the
reason, or refused by name. Read in this order: `rules.py` (rows for weights), `config_rules.py` (rows for configs),
`families/gpt2.py` (a family), `pretrained.py` (load and export); then `files.py`, `source.py`, `hub.py`, `embedded.py`.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.checkpoint.embedded import EMBEDDED as EMBEDDED
    from clearhead.checkpoint.family import Family as Family
    from clearhead.checkpoint.pretrained import Pretrained as Pretrained
    from clearhead.checkpoint.pretrained import export as export
    from clearhead.checkpoint.pretrained import load as load
    from clearhead.checkpoint.report import Report as Report

__getattr__, __dir__ = attach(
    __name__,
    {
        "EMBEDDED": "clearhead.checkpoint.embedded",
        "Family": "clearhead.checkpoint.family",
        "Pretrained": "clearhead.checkpoint.pretrained",
        "Report": "clearhead.checkpoint.report",
        "export": "clearhead.checkpoint.pretrained",
        "load": "clearhead.checkpoint.pretrained",
    },
)
