"""A tokenizer's files on the disk: read whole, of a reasonable size; written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearhead.errors import TokenizerError

LARGEST_FILE = 512 * 1024 * 1024
"""Bytes. The largest tokenizers in use, of a quarter of a million tokens, take some 35 million."""


def read_bytes(file: Path) -> bytes:
    """The bytes of a file of reasonable size. Raises `TokenizerError`."""
    try:
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise TokenizerError(f"{file} has {size} bytes, too many for a tokenizer; {LARGEST_FILE} are allowed")
        return file.read_bytes()
    except (OSError, ValueError) as problem:
        raise TokenizerError(f"{str(file)[:200]!r} cannot be read: {problem}") from None


def read_text(file: Path) -> str:
    """The text of a UTF-8 file. Raises `TokenizerError`."""
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise TokenizerError(f"{file} is not UTF-8 text, at byte {problem.start}; the file is damaged") from None


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `TokenizerError`."""
    try:
        value = json.loads(read_text(file))
    except (ValueError, RecursionError) as problem:
        if isinstance(problem, TokenizerError):
            raise
        raise TokenizerError(f"{file} is not valid JSON: {problem}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{file} should hold a JSON object, not a {type(value).__name__}")
    return value


def read_optional(file: Path) -> dict[str, Any]:
    """The object in a JSON file, or an empty one where there is no such file. Raises `TokenizerError`."""
    return read_json(file) if file.is_file() else {}


def write_all(folder: Path, files: Mapping[str, bytes], config: dict[str, Any], chat_template: str | None) -> None:
    """Write a folder that Hugging Face reads too: `files`, and their config. A `chat_template.jinja` that is there
    already would overrule the config, so it is kept in step. Raises `TokenizerError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        template = folder / "chat_template.jinja"
        if template.exists() and chat_template is None:
            template.unlink()
        elif template.exists() and chat_template is not None:
            write(template, chat_template.encode())
    except OSError as problem:
        raise TokenizerError(f"{str(folder)[:200]!r} cannot be written: {problem}") from None
    for name, content in files.items():
        write(folder / name, content)
    write(folder / "tokenizer_config.json", (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode())


def write(file: Path, content: bytes) -> None:
    """Write `file` whole or not at all: into a neighbour first, which then takes its name. Raises `TokenizerError`."""
    neighbour = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(neighbour, "xb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(neighbour, file)
    except (OSError, ValueError) as problem:
        neighbour.unlink(missing_ok=True)
        raise TokenizerError(f"{file} cannot be written: {problem}") from None
