"""The hub: a checkpoint by its id on huggingface.co, its safe files only, kept in the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clearhead.errors import UnknownModelError

NAME = r"[A-Za-z0-9][\w.-]{0,95}"
ID = re.compile(rf"{NAME}(/{NAME})?")
GGUF = re.compile(rf"({NAME}/{NAME})/({NAME}\.gguf)")
"""One file of a model that is offered in many sizes: who/what/which.gguf."""
FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja"]
"""What is fetched: no pickles, no code."""
PICKLES = ["pytorch_model*.bin"]
"""What is fetched besides where it was asked for, and there are no safetensors."""
OTHERS = ["*/*.safetensors", "consolidated*", "onnx/*", "openvino/*", "original/*"]
"""What of it is left out: weights of other layouts."""
PATIENCE = 5.0
"""Seconds that the hub has to answer whether a model is there."""


def download(name: str, revision: str | None, embedded: Iterable[str], *, pickle: bool = False) -> Path:
    """The folder of a hub id: from the cache where the hub cannot be asked, or HF_HUB_OFFLINE says not to. Of an id
    with a GGUF file's name after it, that file alone.

    Raises UnknownModelError where the name is no id, or there is no such model, or it cannot be reached.
    """
    known = f"a folder, an embedded model ({', '.join(embedded)}) or a hub id"
    file = GGUF.fullmatch(name)
    if not (file or ID.fullmatch(name)) or ".." in name or "--" in name:
        raise UnknownModelError(f"{name!r} is neither {known}; check the spelling.")
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    options: dict[str, Any] = {"revision": revision, "etag_timeout": PATIENCE}
    try:
        if file:
            return Path(str(hf_hub_download(file[1], file[2], **options)))
        found = Path(str(snapshot_download(name, allow_patterns=FILES, ignore_patterns=OTHERS, **options)))
        if pickle and not any(found.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=PICKLES, ignore_patterns=OTHERS, **options)
    except GatedRepoError:
        raise UnknownModelError(f"{name!r} asks for an agreement on huggingface.co; sign it, then log in.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UnknownModelError(f"{name!r} is neither {known}; check the spelling.") from None
    except RevisionNotFoundError:
        raise UnknownModelError(f"{name!r} has no revision {revision!r}; leave it out for the newest.") from None
    except Exception as error:  # whatever the hub's client, and the HTTP client under it, raise for a network
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError) and file:
            raise UnknownModelError(f"{file[1]!r} has no file {file[2]!r} on the hub; check the spelling.") from None
        raise UnknownModelError(
            f"{name!r} is no folder and no embedded model ({', '.join(embedded)}), and the hub cannot be reached "
            f"({type(error).__name__}); check the spelling, or the network."
        ) from None
    return found
