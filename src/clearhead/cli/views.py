"""What `clearhead look` prints: an overview of all heads, the map of one, or the heads ranked by one link."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from clearhead.cli import paint
from clearhead.cli.links import Found, LeftOut, strongest
from clearhead.cli.terminal import Terminal
from clearhead.lens.counting import counted
from clearhead.lens.look import Look
from clearhead.lens.seen import Kind
from clearhead.serve.facts import Readable

BAR = 20


def overview(console: Terminal, lm: Readable, seen: Look, kinds: list[Kind], top: int, all_links: bool) -> None:
    """Each head's strongest link as a grid of layers and heads, and each layer's strongest as a list."""
    console.print(heading(lm, seen))
    for kind in kinds:
        out = LeftOut.of(seen, kind, nothing=all_links)
        layers = range(seen.n_layers(kind))
        found = [strongest(seen.seen.call(n, kind), range(seen.n_heads(kind, n)), out, top) for n in layers]
        heads = max(map(len, found))
        peaks = [[next((link.weight for link in links), 0.0) for links in layer.values()] for layer in found]
        console.print()
        console.print(Text(f"{_title(kind, kinds)}Each head's strongest link, in hundredths", "bold"))
        cell = paint.cell_width(heads, console.width - 9) or 1
        rows = [f"layer {n}" for n in layers]
        console.print(paint.grid(peaks, rows, [str(h) for h in range(heads)], cell, console.colours), end="")
        console.print()
        console.print(Text(f"{_title(kind, kinds)}Each layer's strongest links", "bold"))
        best = [
            sorted((x for links in layer.values() for x in links), key=lambda x: -x.weight)[:top] for layer in found
        ]
        console.print(_list([link for layer in best for link in layer], seen, console))
        _say_left_out(console, out)
    console.print(Text("One head's map: --layer L --head H. Who links two words: --ask WORD WORD.", "dim"))


def one_head(
    console: Terminal, lm: Readable, seen: Look, kind: Kind, layer: int, head: int, top: int, all_links: bool
) -> None:
    """One head's map, and its strongest links."""
    console.print(heading(lm, seen))
    console.print()
    where = f"{kind} " if len(seen.kinds) > 1 else ""
    console.print(Text(f"Head {layer}.{head} {where}", "bold").append("each row reads the columns", "not bold dim"))
    rows, columns = seen.sides(kind)
    console.print(paint.head_map(seen.map(layer, head, kind), rows, columns, console.width, console.colours), end="")
    console.print(paint.legend(console.colours))
    console.print()
    out = LeftOut.of(seen, kind, nothing=all_links)
    console.print(Text("Its strongest links", "bold"))
    console.print(_list(strongest(seen.seen.call(layer, kind), [head], out, top)[head], seen, console))
    _say_left_out(console, out)


def asked(console: Terminal, lm: Readable, seen: Look, kind: Kind, ask: tuple[str, str], top: int) -> None:
    """All heads, ranked by how much the first word reads the second."""
    links = seen.ask(*ask, kind=kind)
    console.print(heading(lm, seen))
    console.print()
    console.print(Text(f"How much {ask[0]!r} reads {ask[1]!r}", "bold"))
    table = _table("head", "weight", "")
    for link in links[:top]:
        table.add_row(f"{link.layer}.{link.head}", f"{link.weight:.4f}", paint.bar(link.weight, BAR, console.colours))
    console.print(table)
    rest = len(links) - top
    more = f"{counted(rest, 'more head')}; --top {len(links)} lists them all. " if rest > 0 else ""
    console.print(Text(f"{more}A word of several tokens: read from by their mean, read by their sum.", "dim"))


def heading(lm: Readable, seen: Look) -> Text:
    """Which model ran, where, in which numbers, through which kernel: said once."""
    facts = [_shape(seen, kind) for kind in seen.kinds]
    facts.append(
        counted(len(seen.tokens), "token") + (f" → {len(seen.target_tokens)}" if seen.target is not None else "")
    )
    call = seen.seen.call(0, seen.kinds[0])
    q = call.tensors[0]
    facts += [f"{q.device} {str(q.dtype).removeprefix('torch.')}", call.kernel]
    return Text(lm.name, "bold").append(" · " + " · ".join(facts), "not bold dim")


def _list(links: list[Found], seen: Look, console: Terminal) -> Table:
    table = _table("head", "token", "", "reads", "weight", "")
    for link in links:
        rows, columns = seen.sides(link.kind)
        table.add_row(
            f"{link.layer}.{link.head}",
            _word(rows[link.query], link.query),
            Text("→", "dim"),
            _word(columns[link.key], link.key),
            f"{link.weight:.4f}",
            paint.bar(link.weight, BAR, console.colours),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("head", "weight") else "left", no_wrap=True)
    return table


def _word(token: str, index: int) -> Text:
    return Text(paint.clip(token, 18)).append(f" {index}", "dim")


def _shape(seen: Look, kind: Kind) -> str:
    return f"{kind} {seen.seen.shape_of(kind)}"


def _title(kind: Kind, kinds: list[Kind]) -> str:
    return f"{kind}: " if len(kinds) > 1 else ""


def _say_left_out(console: Terminal, out: LeftOut) -> None:
    sentence = out.sentence()
    if sentence is not None:
        console.print(Text(sentence, "dim"))
