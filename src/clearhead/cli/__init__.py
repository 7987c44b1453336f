"""The command line. One file a command, imported when it is called; help needs neither torch nor typer.

A user's mistake is one line on stderr and exit code 2, with nothing written. An exception that is not of the
`ClearheadError` family is our own mistake and keeps its traceback. Ctrl-C ends with 130; a reader that goes away, as
`head` does, ends it quietly with 141, as the shell's own tools do.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module

from clearhead.cli.words import in_options
from clearhead.errors import ClearheadError

TYPE_CHECKING = False  # importing typing would be a good part of what `--help` takes

if TYPE_CHECKING:
    from typing import Any

COMMANDS = {
    "look": "what every attention head reads in a text: in the terminal, as a page, a picture, a table or JSON",
    "explore": "the same in the browser, for any text you type",
    "roles": "which heads have which role, from induction to grammar: a table and a picture",
    "whatif": "what a model would say without a head, a link or a word, and which heads matter",
    "generate": "continue a prompt, or translate or sum it up, as the model does",
    "fill": "what fits in a gap, by a masked language model",
    "classify": "the labels of a text or of its tokens",
    "embed": "one vector for each text, as JSON lines or as a .npy file",
    "train": "train a model as a recipe says, from scratch or from a checkpoint",
    "finetune": "train a model further on your data; the recipe is written for you",
    "evaluate": "how good a model is: perplexity, accuracy, F1, BLEU, chrF, ROUGE",
    "tokenizer": "learn a tokenizer from texts, or show what one makes of a text",
    "export": "write a model as a Hugging Face folder",
    "inspect": "what a model is made of",
}
"""Each command and its line of help; the function of the same name lives in the module of the same name. One that has
commands of its own is a table of them there."""

INTERRUPTED, PIPE_CLOSED = 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or 2 for a mistake that one line on stderr explains."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without × or → still gets its answer
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except ClearheadError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_on_stdout()
        return PIPE_CLOSED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _give_up_on_stdout()
        return _refuse(f"the output cannot be written: {error.strerror}; make room, or write it elsewhere.")


def _give_up_on_stdout() -> None:
    """Python's own flush at the end needs somewhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    match arguments:
        case [] | ["-h" | "--help" | "help", *_]:
            print(_help())
            return 0
        case ["--version" | "-V", *_]:
            from clearhead import __version__

            print(f"clearhead {__version__}")
            return 0
        case [name, *rest] if name in COMMANDS:
            found = getattr(import_module(f"clearhead.cli.{name}"), name)
            return _call(name, found, rest) if callable(found) else _call_one_of(name, found, rest)
        case [name, *_]:
            near = get_close_matches(name, COMMANDS, n=1)
            what = "option" if name.startswith("-") else "command"
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(COMMANDS)}."
            return _refuse(f"there is no {what} {name!r}; {hint}")
    raise AssertionError("unreachable")


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items())
    return (
        "The Transformer, small and exact: run it, and see what every attention head reads.\n\n"
        "Usage: clearhead COMMAND …        clearhead COMMAND --help says what it takes\n\n"
        f"{rows}\n\n"
        "  --version, --help\n\n"
        'Try:  clearhead look "The animal didn\'t cross the street because it was too tired"'
    )


def _call_one_of(name: str, commands: Mapping[str, Callable[..., None]], arguments: list[str]) -> int:
    """A command that has commands of its own: `clearhead tokenizer show …`."""
    match arguments:
        case [one, *rest] if one in commands:
            return _call(f"{name} {one}", commands[one], rest)
        case [] | ["-h" | "--help" | "help", *_]:
            width = max(map(len, commands))
            rows = [f"  {one:<{width}}  {(commands[one].__doc__ or '').splitlines()[0]}" for one in commands]
            usage = f"Usage: clearhead {name} COMMAND …        clearhead {name} COMMAND --help says what it takes"
            print("\n".join([usage, "", *rows]))
            return 0
        case [one, *_]:
            near = get_close_matches(one, commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(commands)}."
            return _refuse(f"clearhead {name} has no command {one!r}; {hint}")
    raise AssertionError("unreachable")


def _call(name: str, function: Callable[..., None], arguments: list[str]) -> int:
    """Let typer read the arguments and call the function; what typer objects to is one line, too."""
    import typer

    app = typer.Typer(
        add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["--help", "-h"]}
    )
    app.command(name)(function)
    command = typer.main.get_command(app)
    try:
        with command.make_context(f"clearhead {name}", list(arguments)) as context:
            twice = _given_twice(command, context, list(arguments))
            if twice is not None:
                return _refuse(f"{twice} is given more than once, and takes one; give it once.")
            command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # not one of typer's complaints
            raise
        return _refuse(f"{error.format_message()} ('clearhead {name} --help' says what it takes.)")
    return 0


def _given_twice(command: Any, context: Any, arguments: list[str]) -> str | None:
    """An option of one value that is given again: the last would win in silence. None where there is none."""
    seen: set[str] = set()
    for option in command.make_parser(context).parse_args(arguments)[2]:
        if option.param_type_name == "argument":
            continue
        one = not option.multiple and (not option.is_flag or option.secondary_opts)
        if one and option.name in seen:
            return max(option.opts, key=len)
        seen.add(option.name)
    return None


def _refuse(message: str) -> int:
    line = str(ClearheadError(in_options(message)))  # what cannot be printed is escaped there
    print(f"clearhead: {' '.join(line.split())}", file=sys.stderr)
    return 2
