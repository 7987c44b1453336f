"""Chat templates. A conversation becomes one text by a small Jinja program that comes with the checkpoint.

A program from a checkpoint is not ours, so it runs in a room of its own (`sandbox.py`): it can touch no Python object
but plain data, and it pays for every step from a budget of seconds and characters. The conversation is copied into
plain data first, so that a template can neither change nor explore what it was given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clearhead.errors import MissingDependencyError, TokenizerError

LONGEST_TEMPLATE = 256 * 1024
"""Characters. The longest templates in use have some 20,000."""
LONGEST_OUTPUT = 16 * 1024 * 1024
"""Characters of rendered conversation."""
SECONDS = 5.0
"""What one rendering may take; a usual one takes a few milliseconds."""

Message = Mapping[str, Any]
"""One turn: `{"role": "user", "content": "…"}`, and whatever else the template reads."""


def render(
    template: str,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    *,
    seconds: float = SECONDS,
    longest: int = LONGEST_OUTPUT,
    **variables: Any,
) -> str:
    """Write `messages` as the one text that `template`, in Jinja, makes of them.

    add_generation_prompt: end with the words that open the assistant's turn. `variables` are whatever else the
    template reads: `bos_token`, `eos_token`, `tools`, … A name that is not given is empty to the template.
    The text holds its special tokens already: encode it with `special=False`.

    Raises `TokenizerError` for a template that cannot be read, that refuses the conversation (its own words are
    passed on) or needs more than `seconds` or `longest`, and for messages that are no plain data;
    `MissingDependencyError` without jinja2.
    """
    if not isinstance(template, str) or not template:
        raise TokenizerError("there is no chat template; give one as text, in Jinja")
    if len(template) > LONGEST_TEMPLATE:
        raise TokenizerError(f"the chat template has {len(template)} characters; {LONGEST_TEMPLATE} are allowed")
    conversation = _plain(messages, "messages")
    if not isinstance(conversation, list) or not all(isinstance(message, dict) for message in conversation):
        raise TokenizerError("messages should be a list such as [{'role': 'user', 'content': 'Hello'}]")
    context = {name: _plain(value, name) for name, value in variables.items()}
    context |= {"messages": conversation, "add_generation_prompt": bool(add_generation_prompt)}
    try:
        from clearhead.text.sandbox import run
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] not in ("jinja2", "markupsafe"):
            raise
        raise MissingDependencyError("chat templates need jinja2: pip install 'clearhead[chat]'") from missing
    return run(template, context, seconds=seconds, longest=longest)


def _plain(value: object, name: str) -> Any:
    """A copy of `value` in lists, dicts, texts, numbers, booleans and None."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as problem:
        raise TokenizerError(
            f"{name} must be plain data (lists, dicts, texts, numbers), since the chat template reads it: {problem}"
        ) from None
