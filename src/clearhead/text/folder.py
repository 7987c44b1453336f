"""A tokenizer's folder. Hugging Face writes `tokenizer.json`, which holds everything; older folders hold a vocabulary
in the form of its time, and a few small files beside it say how to read it and which tokens are special.

`read` takes whichever is there and gives a `Found`. Nothing here runs code, follows a path that a file names, or
guesses: a tokenizer class whose ids cannot be had from its vocabulary file alone is refused by name. What is put around
a text is what `tokenizer.json` says, whatever flags such as `add_bos_token` stand beside it, as in transformers 5; of a
translator it is what its class says, since a `tokenizer.json` knows one language only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from clearhead.errors import TokenizerError
from clearhead.text.classes import beside_class, inputs, named
from clearhead.text.files import read_optional, read_text, write_all
from clearhead.text.languages import NONE, Languages
from clearhead.text.readers import READERS, READERS_BY_SUFFIX, Reader, read_sentencepiece, read_whole, reader_for
from clearhead.text.special import ROLES, add_tokens, added_token, mark_special, roles_by_spelling
from clearhead.text.vocabularies import Vocabulary

UNLIMITED = 10**18
"""A `model_max_length` from here on is Hugging Face's way to say that there is none."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a folder says: the pipeline, the token of each role, and what belongs to them.

    target: the pipeline of the texts that are written, where it is another. files: what is to be saved as it was, since
    a tokenizer.json cannot hold it.
    """

    backend: Backend
    special_tokens: dict[str, str] = field(default_factory=dict)
    model_max_length: int | None = None
    chat_template: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    switched_off: dict[str, Any] = field(default_factory=dict)
    languages: Languages = NONE
    target: Backend | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


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
        return _with_companions(folder / models[0], read_sentencepiece)
    raise TokenizerError(
        f"{str(path)!r} holds no tokenizer; one of {', '.join(READERS)} is needed"
        + (f", or one .model file where there are {len(models)}" if models else "")
    )


def _with_companions(file: Path, reader: Reader) -> Found:
    try:
        return _read_all(file.parent, file, reader)
    except TokenizerError as problem:
        if str(file.parent) in str(problem):
            raise
        raise TokenizerError(f"{file}: {problem}") from problem


def _read_all(folder: Path, file: Path, reader: Reader) -> Found:
    own = read_optional(folder / "tokenizer_config.json")
    names = read_optional(folder / "special_tokens_map.json")
    config = {**own, **names} if "added_tokens_decoder" not in own else {**names, **own}
    name = named(config, _model(folder))
    added = _added(folder, config)
    reader, name = reader_for(reader, folder, config, name)
    found = reader(file, {**config, "tokenizer_class": config.get("tokenizer_class") or name})
    backend, roles = found.backend, dict(found.roles)
    for role in ROLES:
        value = config.get(f"{role}_token")
        if value is not None:
            roles[role] = added_token(value).content
    add_tokens(backend, added)
    mark_special(backend, roles, config)
    if not roles:
        roles = roles_by_spelling(
            token.content for token in backend.get_added_tokens_decoder().values() if token.special
        )
    return Found(
        backend=backend,
        special_tokens={role: token for role, token in roles.items() if backend.token_to_id(token) is not None},
        model_max_length=_max_length(config.get("model_max_length")),
        chat_template=_chat_template(folder, own),
        config=_to_keep(own, name, found, own_format=reader is not read_whole),
        switched_off=switch_off(backend),
        languages=found.languages,
        target=found.target,
        files=found.files,
    )


def _model(folder: Path) -> dict[str, Any]:
    """What the model's own config says, if it lies beside; it is not ours to judge."""
    try:
        return read_optional(folder / "config.json")
    except TokenizerError:
        return {}


def _to_keep(own: dict[str, Any], name: str | None, found: Vocabulary, *, own_format: bool) -> dict[str, Any]:
    """The config that is saved with it. Its class is the plain one, for which the tokenizer.json says all, where
    transformers 5 builds another's pipeline anew, by its class alone. What that class had besides is written out.
    A translator keeps its class, which knows its languages."""
    keep = dict(own)
    if found.languages is not NONE or found.files:
        keep["tokenizer_class"] = name
        if found.languages.place != "told":
            keep["additional_special_tokens"] = list(found.languages.tokens.values())
            keep.pop("extra_special_tokens", None)
    else:
        keep = beside_class(name) | keep | {"tokenizer_class": "PreTrainedTokenizerFast"}
    if own_format:  # it is in the pipeline now, and would be built a second time
        keep = {key: value for key, value in keep.items() if key not in ("add_bos_token", "add_eos_token")}
    return keep


def own_config(roles: Mapping[str, str]) -> dict[str, Any]:
    """The config of a tokenizer that comes from no folder."""
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    return plain | inputs(typed={"cls", "sep"} <= roles.keys())


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
        for text, id in read_optional(folder / "added_tokens.json").items():
            added.setdefault(int(id), text)
    except (TypeError, ValueError):
        raise TokenizerError("an id among the added tokens is no whole number; mend tokenizer_config.json") from None
    return added


def write(
    folder: Any,
    files: Mapping[str, bytes],
    kept: Mapping[str, Any],
    special_tokens: Mapping[str, str],
    model_max_length: int | None,
    chat_template: str | None,
) -> None:
    """Write a tokenizer's files, and a config of what its origin's said (but for `auto_map`, which names code) and of
    what it is now. Raises `TokenizerError`."""
    try:
        path = Path(folder)
    except TypeError:
        raise TokenizerError(f"{folder!r} is no folder; give its path") from None
    config = {key: value for key, value in kept.items() if key != "auto_map"}
    for role in ROLES:
        token, named = special_tokens.get(role), config.get(f"{role}_token")
        if token is not None and not (isinstance(named, dict) and named.get("content") == token):
            config[f"{role}_token"] = token
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    if chat_template is not None and not isinstance(config.get("chat_template"), list):
        config["chat_template"] = chat_template
    write_all(path, files, config, chat_template)


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
