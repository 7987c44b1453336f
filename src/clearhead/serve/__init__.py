"""The explorer. A local server that says what every head reads in a text, and a page that asks it.

`app.py` puts the routes together; `routes.py` is what can be asked, JSON and float32; `explorer.py` runs the model and
keeps the looks; `guard.py` decides who is answered at all; `server.py` finds a port and serves. `page/` is plain HTML,
CSS and JavaScript over those routes, and knows nothing that another client could not ask for.
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.serve.app import create_app as create_app
    from clearhead.serve.limits import Limits as Limits
    from clearhead.serve.server import serve as serve

__getattr__, __dir__ = attach(
    __name__,
    {
        "Limits": "clearhead.serve.limits",
        "create_app": "clearhead.serve.app",
        "serve": "clearhead.serve.server",
    },
)
