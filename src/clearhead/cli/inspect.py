"""clearhead inspect. What a model is made of, and what became of each key of its config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.cli.options import Pickle

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text
    from torch import nn

    from clearhead.checkpoint.planned import Examined, Planned
    from clearhead.checkpoint.report import Account
    from clearhead.model.config import ModelConfig, StackConfig


def inspect(
    model: Annotated[str, typer.Argument(help="a folder, a file, a hub id, or an embedded name", show_default=False)],
    tensors: Annotated[bool, typer.Option("--tensors", help="what became of each tensor, too")] = False,
    pickle: Pickle = False,
) -> None:
    """Draw MODEL, and tell its size, its memory, and what became of each key of its config. No weight is read.

    What is refused is told with the rest; the exit code is then 2.
    """
    from rich.text import Text

    from clearhead.checkpoint.planned import examine
    from clearhead.cli.terminal import Terminal

    found = examine(model, pickle=pickle)
    report, planned = found.report, found.planned
    console = Terminal()
    facts = [report.family, *(_facts(planned.config) if planned is not None else ["it cannot be loaded"])]
    console.print(Text(found.source.name, "bold").append(" · " + " · ".join(facts), "not bold dim"))
    for part in _drawn(planned) if planned is not None else ():
        console.print()
        console.print(part, no_wrap=isinstance(part, Text), overflow="ellipsis")
    accounts = (*report.keys, *report.tensors) if tensors else report.keys
    for title, fate in (("Refused", "refused"), ("Read", "read"), ("Ignored", "ignored")):
        some = [account for account in accounts if account.fate == fate]
        if some:
            console.print()
            console.print(_accounts(title, some))
    for note in (*report.notes, *_of_generation(found)):
        console.print()
        console.print(Text(f"Note: {note}."))
    if found.refused is not None:
        raise found.refused


def _drawn(planned: Planned) -> Iterator[Text | Table]:
    from rich.text import Text

    from clearhead.cli.diagram import diagram

    yield Text("\n".join(diagram(planned.config)))
    yield _parts(planned.model)
    yield _memory(planned.model, planned.config)


def _of_generation(found: Examined) -> tuple[str, ...]:
    """What the checkpoint asks of generation that is not applied."""
    from clearhead.generate.defaults import notes
    from clearhead.model.config import LanguageModel

    if found.planned is None or not isinstance(found.planned.config.head, LanguageModel):
        return ()
    return tuple(notes(found.source.generation, found.source.keys))


def _memory(model: nn.Module, config: ModelConfig) -> Table:
    """What the weights take, and what each token adds to the cache of keys and values, by dtype."""
    numbers = sum(parameter.numel() for parameter in model.parameters())  # a shared table counts once
    rows = [("weights", numbers)]
    if config.decoder is not None:
        stack = config.decoder
        token = sum(
            2 * stack.attention_of(layer).kv_heads * stack.attention_of(layer).head_width(config.d_model)
            for layer in range(stack.n_layers)
        )
        rows += [("keys and values, a token", token), (f"a text of {config.context:,} tokens", token * config.context)]
    table = _table("memory", *(f"{bits}-bit" for bits in _WIDTHS))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, count in rows:
        table.add_row(name, *(_bytes(count * bits // 8) for bits in _WIDTHS))
    return table


_WIDTHS = (32, 16, 8)


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def _facts(config: ModelConfig) -> list[str]:
    stacks = {"encoder": config.encoder, "decoder": config.decoder}
    return [
        *(f"{name} {_shape(stack)}" for name, stack in stacks.items() if stack is not None),
        f"{config.d_model} wide",
        f"context {config.context:,}",
        f"vocabulary {config.vocab_size:,}",
    ]


def _shape(stack: StackConfig) -> str:
    heads = sorted({stack.attention_of(layer).n_heads for layer in range(stack.n_layers)})
    return f"{stack.n_layers} layers × {' or '.join(map(str, heads))} heads"


def _parts(model: nn.Module) -> Table:
    """Parameters by part; a table that two parts share is counted once."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():  # each parameter once
        part = _part(name)
        counts[part] = counts.get(part, 0) + parameter.numel()
    total = sum(counts.values())
    table = _table("part", "parameters", "")
    table.columns[1].justify = table.columns[2].justify = "right"
    stacks = ("encoder", "decoder")
    for part in sorted(counts, key=lambda part: not part.startswith(stacks)):  # the head after what it stands on
        table.add_row(part, f"{counts[part]:,}", f"{counts[part] / total:.1%}")
    table.add_row("all", f"{total:,}", "", style="bold")
    return table


def _part(name: str) -> str:
    """`decoder.blocks.3.attention.q_proj.weight` is of the decoder's attention; `head.dense.weight` of the head."""
    first, *rest = [word for word in name.split(".") if not word.isdigit()]
    if first not in ("encoder", "decoder"):
        return first
    if rest[0] != "blocks":
        return f"{first} {'final norm' if rest[0] == 'norm' else rest[0]}"
    return f"{first} {'norms' if rest[1].endswith('norm') else rest[1].replace('_', ' ')}"


def _accounts(title: str, accounts: Sequence[Account]) -> Table:
    from rich.text import Text

    table = _table(title, "where it went" if accounts[0].fate == "read" else "why")
    for account in accounts:
        table.add_row(Text(account.name), Text(account.why, "dim"))
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
