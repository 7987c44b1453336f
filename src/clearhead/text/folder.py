"""A tokenizer's folder. Hugging Face writes `tokenizer.json`, which holds everything; older folders hold a vocabulary
in the form of its time, and a few small files beside it say how to read it and which tokens are special.

`read` takes whichever is there and gives a `Found`. Nothing here runs code, follows a path that a file names, or
guesses: a tokenizer class whose ids cannot be had from its vocabulary file alone is refused by name. What is put around
a text is what `tokenizer.json` says, whatever flags such as `add_bos_token` stand beside it, as in transformers 5.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import Tokenizer as Backend

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated
from clearhead.text.special import ROLES, added_token, roles_by_spelling
from clearhead.text.vocabularies import from_bytes_bpe, from_sentencepiece, from_wordpiece

LARGEST_FILE = 512 * 1024 * 1024
"""Bytes. The largest tokenizers in use, of a quarter of a million tokens, take some 35 million."""
UNLIMITED = 10**18
"""A `model_max_length` from here on is Hugging Face's way to say that there is none."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a folder says: the pipeline, the token of each role, and what belongs to them."""

    backend: Backend
    special_tokens: dict[str, str] = field(default_factory=dict)
    model_max_length: int | None = None
    chat_template: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    switched_off: dict[str, Any] = field(default_factory=dict)


def read(path: str | os.PathLike[str]) -> Found:
    """Read the tokenizer in the folder `path`, or the vocabulary file `path` with what lies beside it.

    Raises `TokenizerError` if there is none, or it cannot be read as what it says it is.
    """
    try:
        path = Path(path)
        exists, is_folder = path.exists(), path.is_dir()
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file()) if is_folder else [path.name]
    except (OSError, ValueError, TypeError) as problem:
        raise TokenizerError(f"{str(path)[:200]!r} cannot be looked at: {problem}") from None
    if not exists:
        raise TokenizerError(f"{str(path)!r} does not exist; give a tokenizer's folder or file")
    folder = path if is_folder else path.parent
    name = next((name for name in READERS if name in names), None)
    if name is not None:
        return _with_companions(folder / name, READERS[name])
    if not is_folder and path.suffix in READERS_BY_SUFFIX:
        return _with_companions(path, READERS_BY_SUFFIX[path.suffix])
    models = [name for name in names if name.endswith(".model")]
    if len(models) == 1:
        return _with_companions(folder / models[0], _read_sentencepiece)
    raise TokenizerError(
        f"{str(path)!r} holds no tokenizer; one of {', '.join(READERS)} is needed"
        + (f", or one .model file where there are {len(models)}" if models else "")
    )


Reader = Callable[[Path, dict[str, Any]], tuple[Backend, dict[str, str]]]
"""From a vocabulary file and the folder's config: the pipeline, and the roles that the format itself gives."""


def _read_json_backend(file: Path, config: dict[str, Any]) -> tuple[Backend, dict[str, str]]:
    with translated(f"{file} is no tokenizer that the tokenizers library can read"):
        return Backend.from_str(read_text(file)), {}


def _read_sentencepiece(file: Path, config: dict[str, Any]) -> tuple[Backend, dict[str, str]]:
    return from_sentencepiece(read_bytes(file), config)


def _read_bytes_bpe(file: Path, config: dict[str, Any]) -> tuple[Backend, dict[str, str]]:
    vocabulary, merges = file.with_name("vocab.json"), file.with_name("merges.txt")
    for needed in (vocabulary, merges):
        if not needed.is_file():
            raise TokenizerError(f"{needed} is missing; vocab.json and merges.txt belong together")
    return from_bytes_bpe(read_json(vocabulary), read_text(merges), config)


def _read_wordpiece(file: Path, config: dict[str, Any]) -> tuple[Backend, dict[str, str]]:
    return from_wordpiece(read_text(file), config)


READERS: dict[str, Reader] = {
    "tokenizer.json": _read_json_backend,
    "tokenizer.model": _read_sentencepiece,
    "spiece.model": _read_sentencepiece,
    "vocab.json": _read_bytes_bpe,
    "merges.txt": _read_bytes_bpe,
    "vocab.txt": _read_wordpiece,
}
"""Which files are looked for in a folder, best first, and how each is read."""
READERS_BY_SUFFIX: dict[str, Reader] = {
    ".json": _read_json_backend,
    ".model": _read_sentencepiece,
    ".txt": _read_wordpiece,
}
"""How a file of another name is read, where it was named itself."""


def _with_companions(file: Path, reader: Reader) -> Found:
    try:
        return _read_all(file.parent, file, reader)
    except TokenizerError as problem:
        if str(file.parent) in str(problem):
            raise
        raise TokenizerError(f"{file}: {problem}") from problem


def _read_all(folder: Path, file: Path, reader: Reader) -> Found:
    config = _optional(folder / "tokenizer_config.json")
    names = _optional(folder / "special_tokens_map.json")
    named = {**config, **names} if "added_tokens_decoder" not in config else {**names, **config}
    backend, roles = reader(file, named)
    roles = dict(roles)
    for role in ROLES:
        value = named.get(f"{role}_token")
        if value is not None:
            roles[role] = added_token(value).content
    _add_tokens(backend, _added(folder, named))
    mark_special(backend, roles, named)
    if not roles:
        roles = roles_by_spelling(
            token.content for token in backend.get_added_tokens_decoder().values() if token.special
        )
    own_format = reader is _read_json_backend
    if not own_format or config.get("tokenizer_class") == "TokenizersBackend":
        config = config | {"tokenizer_class": "PreTrainedTokenizerFast"}
    if not own_format:  # its pipeline is in the pipeline now, and would be built a second time
        config = {key: value for key, value in config.items() if key not in ("add_bos_token", "add_eos_token")}
    return Found(
        backend=backend,
        special_tokens={role: token for role, token in roles.items() if backend.token_to_id(token) is not None},
        model_max_length=_max_length(named.get("model_max_length")),
        chat_template=_chat_template(folder, config),
        config=config,
        switched_off=switch_off(backend),
    )


def switch_off(backend: Backend) -> dict[str, Any]:
    """Truncation, padding and chance (BPE's dropout, Unigram's alpha): off, and returned for the record."""
    model = backend.model
    asked = {"truncation": backend.truncation, "padding": backend.padding}
    backend.no_truncation()
    backend.no_padding()
    for chance in ("dropout", "alpha"):
        asked[chance] = getattr(model, chance, None)
        if asked[chance] is not None:
            setattr(model, chance, None)
    return {name: value for name, value in asked.items() if value}


def _added(folder: Path, config: dict[str, Any]) -> dict[int, Any]:
    """Tokens that were added to the vocabulary later, by id."""
    table = config.get("added_tokens_decoder", {})
    if not isinstance(table, dict):
        raise TokenizerError("added_tokens_decoder in tokenizer_config.json should be an object from id to token")
    try:
        added = {int(id): token for id, token in table.items()}
        added |= {int(id): text for text, id in _optional(folder / "added_tokens.json").items() if int(id) not in added}
    except (TypeError, ValueError):
        raise TokenizerError("an id among the added tokens is no whole number; mend tokenizer_config.json") from None
    return added


def _add_tokens(backend: Backend, added: dict[int, Any]) -> None:
    """Add each token at its own id; it must fit, since the model's weights are numbered so."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for id in sorted(added):
        token = added_token(added[id], special=False)
        if token.content not in known:
            with translated(f"the added token {token.content!r} cannot be added"):
                backend.add_tokens([token])
        if backend.token_to_id(token.content) != id:
            raise TokenizerError(
                f"the added token {token.content!r} should have id {id}, and has {backend.token_to_id(token.content)} "
                "in this vocabulary; the files in this folder do not belong together"
            )


def mark_special(backend: Backend, roles: dict[str, str], config: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Tokens with a role are special, and so are those that the config lists; as far as the vocabulary has them."""
    wanted = [config.get(f"{role}_token") or token for role, token in roles.items()]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        extra = config.get(key) or []
        wanted += list(extra.values()) if isinstance(extra, dict) else extra if isinstance(extra, list) else []
    known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for value in wanted:
        token = added_token(value)
        if token.content not in known and backend.token_to_id(token.content) is not None:
            token.special = True
            backend.add_special_tokens([token])


def _max_length(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < UNLIMITED:
        return None
    return int(value)


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The folder's own file comes first; a config may also hold several by name, of which `default` is meant."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return read_text(file)
    template = config.get("chat_template")
    if isinstance(template, list):
        by_name = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = by_name.get("default")
    return template if isinstance(template, str) and template else None


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


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


def write_all(folder: Path, tokenizer: str, config: dict[str, Any], chat_template: str | None) -> None:
    """Write a folder that `read` and Hugging Face read alike. A `chat_template.jinja` that is there already would
    overrule the config, so it is kept in step. Raises `TokenizerError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        template = folder / "chat_template.jinja"
        if template.exists() and chat_template is None:
            template.unlink()
        elif template.exists() and chat_template is not None:
            write(template, chat_template)
    except OSError as problem:
        raise TokenizerError(f"{str(folder)[:200]!r} cannot be written: {problem}") from None
    write(folder / "tokenizer.json", tokenizer)
    write(folder / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def write(file: Path, text: str) -> None:
    """Write `file` whole or not at all: into a neighbour first, which then takes its name. Raises `TokenizerError`."""
    neighbour = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(neighbour, "x", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(neighbour, file)
    except (OSError, ValueError) as problem:
        neighbour.unlink(missing_ok=True)
        raise TokenizerError(f"{file} cannot be written: {problem}") from None
