"""clearhead inspect. What a model is made of, and what became of each key of its config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from clearhead.checkpoint.report import Account
    from clearhead.model.config import ModelConfig, StackConfig


def inspect(
    model: Annotated[str, typer.Argument(help="a folder, a hub id, or an embedded name", show_default=False)],
) -> None:
    """Show MODEL's family, size, context and parts, and how each key of its config was read, or why it was not."""
    from rich.text import Text

    import clearhead
    from clearhead.cli.terminal import Terminal

    lm = clearhead.load(model)
    console = Terminal()
    console.print(
        Text(lm.name, "bold").append(" · " + " · ".join([lm.report.family, *_facts(lm.config)]), "not bold dim")
    )
    console.print()
    console.print(_parts(lm.model))
    for title, fate in (("Key read", "read"), ("Key ignored", "ignored")):
        accounts = [account for account in lm.report.keys if account.fate == fate]
        if accounts:
            console.print()
            console.print(_accounts(title, accounts))
    for note in lm.report.notes:
        console.print()
        console.print(Text(f"Note: {note}."))


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
