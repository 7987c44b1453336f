"""The hub: a checkpoint by its id on huggingface.co, its safe files only, kept in the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from clearhead.errors import UnknownModelError

ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
"""What is fetched: no pickles, no code."""
OTHERS = ["*/*.safetensors", "consolidated*", "onnx/*", "openvino/*", "original/*"]
"""What of it is left out: weights of other layouts."""
PATIENCE = 5.0
"""Seconds that the hub has to answer whether a model is there."""


def download(name: str, revision: str | None, embedded: Iterable[str]) -> Path:
    """The folder of a hub id: from the cache where the hub cannot be asked, or HF_HUB_OFFLINE says not to.

    Raises UnknownModelError where the name is no id, or there is no such model, or it cannot be reached.
    """
    known = f"a folder, an embedded model ({', '.join(embedded)}) or a hub id"
    if not ID.fullmatch(name) or ".." in name or "--" in name:
        raise UnknownModelError(f"{name!r} is neither {known}; check the spelling.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=FILES, ignore_patterns=OTHERS, etag_timeout=PATIENCE
        )
    except GatedRepoError:
        raise UnknownModelError(f"{name!r} asks for an agreement on huggingface.co; sign it, then log in.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UnknownModelError(f"{name!r} is neither {known}; check the spelling.") from None
    except RevisionNotFoundError:
        raise UnknownModelError(f"{name!r} has no revision {revision!r}; leave it out for the newest.") from None
    except Exception as error:  # whatever the hub's client, and the HTTP client under it, raise for a network
        raise UnknownModelError(
            f"{name!r} is no folder and no embedded model ({', '.join(embedded)}), and the hub cannot be reached "
            f"({type(error).__name__}); check the spelling, or the network."
        ) from None
    return Path(str(found))
