"""Finding: from what a user names (a folder, a file, an embedded name, a hub id) to a source that can be read."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from clearhead.checkpoint import embedded, hub
from clearhead.checkpoint.source import CONFIG, Source, from_file, from_folder
from clearhead.errors import UnknownModelError


def find(name: str, revision: str | None = None, *, pickle: bool = False) -> Source:
    """The checkpoint of this name: a model's folder, an embedded model, another folder or a file, then the hub's.

    pickle: whether weights may be read that are a pickle. Raises UnknownModelError where there is nothing of the name.
    """
    path = Path(name)
    with suppress(RuntimeError):  # ~somebody who is unknown here
        path = path.expanduser()
    try:
        is_folder, is_file, is_model = path.is_dir(), path.is_file(), (path / CONFIG).is_file()
    except (OSError, ValueError):  # no name that a file could have
        is_folder = is_file = is_model = False
    if revision is not None and (is_model or (name not in embedded.EMBEDDED and (is_folder or is_file))):
        raise UnknownModelError(f"{name!r} lies on this machine, where it has no revisions; leave revision out.")
    if name and is_model:
        return from_folder(path, name, pickle=pickle)
    if name in embedded.EMBEDDED:
        return embedded.find(name, revision)
    if name and is_folder:
        return from_folder(path, name, pickle=pickle)
    if name and is_file:
        return from_file(path, name, pickle=pickle)
    if name.startswith((".", "/", "~")):
        known = ", ".join(embedded.EMBEDDED)
        raise UnknownModelError(f"{name!r}: there is no such folder or file; the embedded models are {known}.")
    try:
        found = hub.download(name, revision, embedded.EMBEDDED, pickle=pickle)
    except UnknownModelError as error:
        near = get_close_matches(name.lower(), embedded.EMBEDDED, n=1)
        if not near:
            raise
        raise UnknownModelError(f"{name!r}: did you mean {near[0]!r}? {error}") from None
    return from_file(found, name) if found.is_file() else from_folder(found, name, pickle=pickle)
