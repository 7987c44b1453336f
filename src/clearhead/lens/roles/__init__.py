"""Roles. Which heads have a habit that has a name: the previous token, induction, a relation of grammar, a sink.

`find` reads texts with a model and says which heads have which role (`names.py`), and how surely. Texts come from
`probes.py`, `treebank.py` and `pairs.py`; `detectors.py`, `relations.py` and `coreference.py` score them; `atlas.py`
draws all heads as one picture.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.lens.roles.atlas import draw as draw
    from clearhead.lens.roles.finding import find as find
    from clearhead.lens.roles.finding import habits as habits
    from clearhead.lens.roles.finding import induction as induction
    from clearhead.lens.roles.names import FirstToken as FirstToken
    from clearhead.lens.roles.names import Role as Role
    from clearhead.lens.roles.report import Finding as Finding
    from clearhead.lens.roles.report import Roles as Roles

__getattr__, __dir__ = attach(
    __name__,
    {
        "Finding": "clearhead.lens.roles.report",
        "FirstToken": "clearhead.lens.roles.names",
        "Role": "clearhead.lens.roles.names",
        "Roles": "clearhead.lens.roles.report",
        "draw": "clearhead.lens.roles.atlas",
        "find": "clearhead.lens.roles.finding",
        "habits": "clearhead.lens.roles.finding",
        "induction": "clearhead.lens.roles.finding",
    },
)
