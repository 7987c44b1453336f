"""A room for templates from strangers. Jinja's sandbox keeps them from Python's objects; a budget keeps them short.

Jinja has no `while`, so a template's steps are loops over lists, calls, operators and filters. Each of them pays
before it runs: one character for a turn of a loop, and for what makes text, the size of what it will make. A budget
that is spent, or a second too many, ends the rendering. What would make much out of little without need (padding to a
width, most of Jinja's filters) is not there at all.

This bounds time and output. Memory is bounded only loosely, since a template may keep many slices of one long text.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from clearhead.errors import TokenizerError

# fmt: off
FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "forceescape", "format",
    "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title",
    "trim", "truncate", "unique", "upper", "wordcount",
)
# fmt: on
PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "translate", "to_bytes"}
"""Methods that make a long text out of a short one; templates for chats have no use for them."""


class Overrun(Exception):
    """The template used up its budget."""


class Budget:
    """Characters that may still be made, and the moment by which all must be done."""

    def __init__(self, characters: int, seconds: float) -> None:
        self.characters, self.seconds = characters, seconds
        self.deadline = time.monotonic() + seconds

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise Overrun("makes too much text")
        if time.monotonic() > self.deadline:
            raise Overrun(f"takes more than {self.seconds:g} seconds")


_budget: ContextVar[Budget] = ContextVar("_budget")


def spend(characters: int) -> None:
    """Take from the budget of the rendering that runs now."""
    _budget.get().spend(characters)


def run(template: str, context: dict[str, Any], *, seconds: float, longest: int) -> str:
    """Render `template` with plain data. Whatever goes wrong in it leaves as one `TokenizerError`."""
    token = _budget.set(Budget(4 * longest + 1024 * 1024, seconds))
    pieces: list[str] = []
    left = longest
    try:
        for piece in _compiled(template).generate(context):
            left -= len(piece)
            if left < 0:
                raise Overrun(f"writes more than {longest} characters")
            pieces.append(piece)
    except Overrun as stop:
        raise TokenizerError(f"the chat template {stop}; use another template or a shorter conversation") from None
    except TemplateSyntaxError as problem:
        raise TokenizerError(f"the chat template cannot be read: line {problem.lineno}: {_line(problem)}") from None
    except TemplateError as problem:
        raise TokenizerError(f"the chat template refuses this conversation: {_line(problem)}") from None
    except Exception as problem:
        reason = f"{type(problem).__name__}: {_line(problem)}"
        raise TokenizerError(f"the chat template fails on this conversation: {reason}") from None
    finally:
        _budget.reset(token)
    return "".join(pieces)


def _line(problem: Exception) -> str:
    return " ".join(str(getattr(problem, "message", None) or problem).split())[:300]


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    room = Room()
    return room.from_string(_Meter(room).visit(room.parse(template)))


class Room(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it from Hugging Face, with a price on every step."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_written,
            extensions=[GenerationBlock, "jinja2.ext.loopcontrols"],
        )
        self.filters = {name: _priced(name, self.filters[name]) for name in FILTERS} | {"tojson": _tojson}
        self.globals = {
            "range": _range,
            "dict": lambda **items: items,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: datetime.now().strftime(form),
        }

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        spend(_price_of_operator(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            spend(_price_of_text(name, owner, args))
        result = super().call(__context, __obj, *args, **kwargs)
        spend(1 + _size(result))
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in PADDING and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        form = value.__self__

        def priced(*args: Any, **kwargs: Any) -> str:
            spend(_price_of_form(form, [*args, *kwargs.values()]))
            return wrapped(*args, **kwargs)

        return priced

    def toll(self, characters: int) -> None:
        """One turn of a loop, or one call of a macro, with what it may write by itself."""
        spend(characters)

    def concatenate(self, *values: Any) -> str:
        """`a ~ b`."""
        texts = [str(value) for value in values]
        spend(sum(map(len, texts)))
        return "".join(texts)


class _Meter(NodeTransformer):
    """Puts a payment at the head of every loop and macro body, and turns `a ~ b` into a call that pays."""

    def __init__(self, room: Room) -> None:
        self.room = room

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._charged(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._charged(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._charged(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._call("concatenate", list(node.nodes), node.lineno)

    def _charged(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        written = 1 + sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        toll = self._call("toll", [nodes.Const(written, lineno=node.lineno)], node.lineno)
        node.body.insert(0, nodes.ExprStmt(toll, lineno=node.lineno))
        return node

    def _call(self, name: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
        call = nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)
        call.set_lineno(line, override=False)
        call.set_environment(self.room)
        return call


class GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}`, by which training marks the assistant's words: here, just its inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Jinja's `namespace()`, without names such as `__html__` by which a template could offer code to its filters."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name in [*(key for items in args for key in dict(items)), *kwargs]:
            _check_name(name)
        super().__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"a namespace keeps no {name!r}; choose a name that does not begin with '_'")


def _written(value: Any) -> Any:
    """What `{{ value }}` writes, whether to the output or into a variable."""
    text = value if isinstance(value, str) else str(value)
    spend(len(text))
    return text


def _priced(name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, paid for before where it can make much out of little, and by its result in any case."""

    def priced(*args: Any, **kwargs: Any) -> Any:
        values = list(args)
        at = 1 if getattr(filter, "jinja_pass_arg", None) is not None else 0
        subject, rest = values[at], [*values[at + 1 :], *kwargs.values()]
        if name == "join":
            values[at] = subject = list(subject)
            spend(sum(map(_size, subject)) + len(subject) * (1 + sum(map(_size, rest))))
        elif name == "replace":
            spend(_price_of_text(name, str(subject), tuple(rest)))
        elif name == "indent":
            spend((str(subject).count("\n") + 1) * (_numbers(rest) + sum(map(_size, rest)) + 4))
        elif name == "format":
            spend(_price_of_form(str(subject), rest))
        elif name == "sum" and any(isinstance(value, list | tuple) for value in rest):
            raise SecurityError("the filter 'sum' adds numbers only")
        result = filter(*values, **kwargs)
        spend(1 + _size(result))
        return result

    for mark in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(filter, mark):
            setattr(priced, mark, getattr(filter, mark))
    return priced


def _price_of_operator(operator: str, left: Any, right: Any) -> int:
    if isinstance(left, str) and operator == "%":
        return _price_of_form(left, list(right) if isinstance(right, tuple) else [right])
    if operator == "*" and isinstance(left, int) and isinstance(right, str | list | tuple):
        left, right = right, left
    if isinstance(left, str | list | tuple):
        return len(left) * max(right, 0) if operator == "*" and isinstance(right, int) else _size(left) + _size(right)
    if isinstance(left, int) and isinstance(right, int):
        words = (left.bit_length() // 64 + 1, right.bit_length() // 64 + 1)
        return (words[0] * max(right, 1)) ** 2 if operator == "**" else words[0] * words[1]
    return 1


def _price_of_text(method: str, text: str, args: tuple[Any, ...]) -> int:
    if method == "replace" and len(args) >= 2:
        old, new = str(args[0]), str(args[1])
        return len(text) + (text.count(old) if old else len(text) + 1) * len(new)
    if method == "join" and args:
        if not isinstance(args[0], list | tuple | str | dict):
            raise SecurityError("'join' joins lists; use the filter 'list' first")
        return sum(map(_size, args[0])) + len(args[0]) * len(text)
    return len(text)


def _price_of_form(form: str, args: list[Any]) -> int:
    """An upper bound for `form % args` and `form.format(…)`: all its widths, and every argument in every place."""
    widths = sum(int(number[:12]) for number in re.findall(r"\d+", form))
    places = form.count("%") + form.count("{")
    return len(form) + widths + places * (_numbers(args) + sum(len(str(arg)) for arg in args))


def _numbers(values: Iterable[Any]) -> int:
    return sum(abs(value) for value in values if isinstance(value, int))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else 1


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, where Jinja's own filter would write it for HTML."""
    if isinstance(value, Undefined):
        raise TemplateError("it writes a variable as JSON that was not given")
    if indent is not None and not (isinstance(indent, int) and 0 <= indent <= 16):
        raise SecurityError(f"tojson indents by 0 to 16 spaces, not {str(indent)[:20]}")
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    spend(len(text))
    return text


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    spend(len(numbers))
    return numbers


def _raise_exception(message: str) -> None:
    raise TemplateError(str(message))
