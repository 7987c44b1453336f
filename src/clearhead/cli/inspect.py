"""clearhead inspect. What a model is made of, and what became of each key of its config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from clearhead.checkpoint.report import Account, Report


def inspect(
    model: Annotated[str, typer.Argument(help="a folder, a hub id, or an embedded name", show_default=False)],
) -> None:
    """Show MODEL's family, size, context and parts, and how each key of its config was read, or why it was not."""
    from rich.console import Console
    from rich.text import Text

    import clearhead

    lm = clearhead.load(model)
    config, console = lm.config, Console(highlight=False)
    stacks = {"encoder": config.encoder, "decoder": config.decoder}
    shape = [
        f"{name}: {stack.n_layers} layers × {stack.attention.n_heads} heads"
        for name, stack in stacks.items()
        if stack is not None
    ]
    facts = [
        lm.report.family,
        *shape,
        f"{config.d_model} wide",
        f"context {config.context:,}",
        f"vocabulary {config.vocab_size:,}",
    ]
    console.print(Text(lm.name, "bold").append(" · " + " · ".join(facts), "not bold dim"))
    console.print()
    console.print(_parts(lm.model))
    for line in _fates(lm.report):
        console.print(line)


def _parts(model: nn.Module) -> Table:
    """Parameters by part; a table that is shared is counted where it stands first."""
    from rich.table import Table

    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():  # each parameter once
        part = _part(name)
        counts[part] = counts.get(part, 0) + parameter.numel()
    total = sum(counts.values())
    table = Table("part", "parameters", "", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[1].justify = table.columns[2].justify = "right"
    for part, count in counts.items():
        table.add_row(part, f"{count:,}", f"{count / total:.1%}")
    table.add_row("all", f"{total:,}", "", style="bold")
    return table


def _part(name: str) -> str:
    """`decoder.blocks.3.attention.q_proj.weight` is part of the decoder's attention."""
    words = [word for word in name.split(".") if not word.isdigit()]
    if "blocks" in words:
        stack, kind = words[0], words[words.index("blocks") + 1]
        return f"{stack} norms" if kind.endswith("norm") else f"{stack} {kind.replace('_', ' ')}"
    return " ".join(words[:2]).replace("_", " ") if len(words) > 2 else words[0]


def _fates(report: Report) -> Iterator[str]:
    from rich.markup import escape

    fates = (
        ("read", "Keys read"),
        ("ignored", "Keys ignored, and why"),
    )
    for fate, title in fates:
        accounts: list[Account] = [account for account in report.keys if account.fate == fate]
        if accounts:
            yield f"\n[bold]{title}[/bold]"
        for account in accounts:
            yield f"{escape(account.name)} [dim]{escape(account.why)}[/dim]"
    if report.notes:
        yield "\n[bold]Notes[/bold]"
        yield from (escape(note) for note in report.notes)
