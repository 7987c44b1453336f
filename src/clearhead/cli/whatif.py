"""clearhead whatif. What a model would say without a head, a link, a word, its mask; and which heads matter for a text.

--json writes {"model", "text", "target", "changed", "measure", "value", "said", "rows": [{"what", "before", "after",
"change"}]}; with --sweep {"model", "text", "target", "how", "measure", "tables": {kind: [[value]]}, "strongest":
[{"kind", "layer", "head", "value"}]}, a table's rows being layers. Fields may be added.
"""

from __future__ import annotations

import json
import math
import re
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clearhead.cli.look import KindChoice
from clearhead.cli.options import Pickle, SourceLanguage, TargetLanguage, languages
from clearhead.errors import InputError

if TYPE_CHECKING:
    from clearhead.cli.terminal import Terminal
    from clearhead.lens.seen import Kind
    from clearhead.lens.whatif import Effect, Experiment, Measure, Sweep
    from clearhead.lens.whatif.effect import Change

BAR = 20
"""The widest bar."""


class How(str, Enum):  # noqa: UP042 — typer below 0.19 shows str subclasses best
    """What a silenced head says, as `--how` takes it."""

    zero = "zero"
    mean = "mean"


def whatif(
    text: Annotated[str, typer.Argument(help="what the model reads", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="a folder, a hub id, or an embedded name")] = "minilm",
    target: Annotated[str | None, typer.Option(help="the decoder's text, for encoder-decoders")] = None,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    silence: Annotated[list[str] | None, typer.Option(metavar="L.H", help="silence this head; again for more")] = None,
    how: Annotated[How | None, typer.Option(help="what a silenced head says: nothing, or its mean")] = None,
    reference: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="a text to take the mean over; again for more")
    ] = None,
    cut: Annotated[
        tuple[str, str] | None, typer.Option(metavar="QUERY KEY", help="the first word does not read the second")
    ] = None,
    withhold: Annotated[bool, typer.Option("--withhold", help="with --cut: no other word gets the weight")] = False,
    delete: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="no word reads this one; again for more")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="divide scores: below 1 sharper, above 1 flatter")] = None,
    no_mask: Annotated[bool, typer.Option("--no-mask", help="every word reads what comes after it, too")] = False,
    no_sqrt_d: Annotated[bool, typer.Option("--no-sqrt-d", help="do not divide scores by √d")] = False,
    no_sinks: Annotated[bool, typer.Option("--no-sinks", help="without learned sinks")] = False,
    patch: Annotated[str | None, typer.Option(metavar="TEXT", help="--head says what it says in this text")] = None,
    at: Annotated[
        list[str] | None, typer.Option(metavar="HERE=THERE", help="with --patch: only at this word, from that one")
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option(metavar="L.H", help="only in this head; again for more; else in all")
    ] = None,
    kind: Annotated[KindChoice | None, typer.Option(help="which attention, where there are several")] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="silence each head alone, and rank them")] = False,
    word: Annotated[
        str | None, typer.Option(help="measure this next word's probability; of several tokens, the first one's")
    ] = None,
    label: Annotated[str | None, typer.Option(help="measure this label's logit")] = None,
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="how many lines to list")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON to stdout instead")] = False,
    pickle: Pickle = False,
) -> None:
    """Read TEXT twice, as it is and with something changed, and show what MODEL says before and after.

    Heads are written layer.head, from 0. Words are the text's; a word's second occurrence is word#2.
    """
    from clearhead.lens.whatif import (
        AtTemperature,
        Cut,
        Delete,
        Patch,
        Rescore,
        Silence,
        WithoutMask,
        WithoutScale,
        WithoutSinks,
    )

    which: Kind | None = kind.value if kind is not None else None
    if (how is not None or reference) and not (sweep or silence):
        raise InputError("--how and --reference are for --silence and --sweep; leave them out.")
    if reference and how is not How.mean:
        raise InputError("--reference gives texts to take a mean over; add --how mean, or leave --reference out.")
    heads = _heads(head)
    asked: list[Experiment] = []
    if silence:
        asked.append(Silence(_heads(silence) or [], how.value if how else "zero", tuple(reference or ()), which))
    if cut is not None:
        asked.append(Cut(*cut, heads, which, renormalise=not withhold))
    asked += [Delete(each, heads, which) for each in delete or ()]
    changes = (
        (temperature is not None, lambda: AtTemperature(temperature or 0.0)),
        (no_mask, WithoutMask),
        (no_sqrt_d, WithoutScale),
        (no_sinks, WithoutSinks),
    )
    asked += [Rescore(change(), heads, which) for wanted, change in changes if wanted]
    if patch is not None:
        if heads is None:
            raise InputError("--patch needs to know which head; add --head L.H, such as --head 5.11.")
        asked.append(Patch(patch, heads, target, _pairs(at), which))
    _check(asked, sweep, bool(silence), bool(heads), withhold, cut, at, patch)
    measure = _measure(word, label)

    import clearhead

    lm = clearhead.load(model, pickle=pickle)
    if sweep:
        from clearhead.lens.whatif import sweep as sweep_all

        found = sweep_all(
            lm,
            text,
            target,
            **languages(source_language, target_language),
            measure=measure,
            how=how.value if how else "zero",
            references=tuple(reference or ()),
            kind=which,
        )
        if as_json:
            print(json.dumps(_sweep_json(found, lm.name, text, target, how.value if how else "zero", top)))
        else:
            _draw_sweep(found, lm.name, text, how.value if how else "zero", top)
        return
    from clearhead.lens.whatif import whatif as ask

    effect = ask(lm, text, *asked, target=target, **languages(source_language, target_language), measure=measure)
    rows = _rows(effect, top)
    if as_json:
        said: dict[str, Any] = {
            "model": lm.name,
            "text": text,
            "target": target,
            "changed": [each.words for each in asked],
        }
        said |= {"measure": effect.measure.words, "value": effect.value, "said": effect.said.title}
        lines = [{**row._asdict(), "change": row.change} for row in rows]
        print(json.dumps({**said, "rows": lines}, ensure_ascii=False))
    else:
        _draw(effect, rows, lm.name, [each.words for each in asked])


# ── what was asked for ───────────────────────────────────────────────────────────────────────────────────────────


def _heads(names: list[str] | None) -> list[tuple[int, int]] | None:
    """5.11 and 3.1,3.2 as pairs of layer and head."""
    if not names:
        return None
    found = []
    for name in (one.strip() for each in names for one in each.split(",")):
        match = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", name)
        if match is None:
            raise InputError(f"{name!r} is no head; write its layer and its number, such as 5.11.")
        found.append((int(match[1]), int(match[2])))
    return found


def _pairs(at: list[str] | None) -> list[tuple[str, str]] | None:
    if at is None or not at:
        return None
    for each in at:
        if not all(each.partition("=")[::2]):
            raise InputError(f"--at {each!r} names no two words; write --at here=there.")
    return [each.partition("=")[::2] for each in at]


def _check(
    asked: list[Experiment],
    sweep: bool,
    silence: bool,
    heads: bool,
    withhold: bool,
    cut: tuple[str, str] | None,
    at: list[str] | None,
    patch: str | None,
) -> None:
    """Say no to what does not go together."""
    if sweep and asked:
        raise InputError("--sweep silences each head alone; leave --silence, --cut and the like out.")
    if not sweep and not asked:
        raise InputError(
            "nothing was changed; give --silence L.H, --cut QUERY KEY, --delete WORD, --sweep, or the like."
        )
    if heads and (sweep or (silence and len(asked) == 1)):
        raise InputError("--head says where --cut, --delete, --patch and the like are; leave it out.")
    if withhold and cut is None:
        raise InputError("--withhold is for --cut; leave it out.")
    if at and patch is None:
        raise InputError("--at is for --patch; leave it out.")


def _measure(word: str | None, label: str | None) -> Measure | None:
    from clearhead.lens.whatif import ClassLogit, LogProbability

    if word is not None and label is not None:
        raise InputError("--word and --label are two measures; give one.")
    if word is not None:
        return LogProbability(word)
    return ClassLogit(label) if label is not None else None


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(effect: Effect, top: int) -> list[Change]:
    """What was likeliest, what gained and what lost most; each once, the largest change first."""
    every = [*effect.gains(top), *effect.losses(top), *effect.likeliest(top)]
    rows = list(dict.fromkeys(every))
    return sorted(rows, key=lambda row: (-abs(row.change), -row.before))[: 2 * top]


def _draw(effect: Effect, rows: list[Change], name: str, changed: list[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from clearhead.cli import paint
    from clearhead.cli.terminal import Terminal

    console = Terminal()
    console.print(Text(name, "bold").append(f" · {'; '.join(changed)}", "not bold dim"))
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for column in (effect.said.title, "before", "after", "change", ""):
        table.add_column(column, justify="right" if column in ("before", "after", "change") else "left", no_wrap=True)
    largest = max((abs(row.change) for row in rows), default=0.0)
    for row in rows:
        share = abs(row.change) / largest if largest else 0.0
        table.add_row(
            Text(_visible(row.what)),
            f"{row.before:.4f}",
            f"{row.after:.4f}",
            f"{row.change:+.4f}",
            paint.bar(share, BAR, console.colours),
        )
    console.print(table)
    console.print()
    sign = "+" if effect.measure.words.startswith("change") else ""  # a distance goes neither up nor down
    console.print(Text(f"{effect.measure.words}: {effect.value:{sign}.6f}"))


def _draw_sweep(found: Sweep, name: str, text: str, how: str, top: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from clearhead.cli import paint
    from clearhead.cli.terminal import Terminal

    console = Terminal()
    ranked = found.strongest(top)
    largest = abs(ranked[0].value) if ranked else 0.0
    console.print(Text(name, "bold").append(f" · each head silenced alone ({how})", "not bold dim"))
    for kind, values in found.tables.items():
        console.print()
        where = f"{kind}: " if len(found.tables) > 1 else ""
        console.print(Text(f"{where}{found.measure.words}, 100 is {largest:.6f}", "bold"))
        shares = [[_share(value, largest) for value in row] for row in values.tolist()]
        labels = [f"layer {layer}" for layer in range(len(shares))]
        columns = [str(head) for head in range(values.shape[1])]
        cell = paint.cell_width(len(columns), console.width - 9) or 1
        console.print(paint.grid(shares, labels, columns, cell, console.colours), end="")
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for column in ("head", "effect", ""):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for one in ranked:
        where = f"{one.kind} " if len(found.tables) > 1 else ""
        bar = paint.bar(_share(one.value, largest), BAR, console.colours)
        table.add_row(f"{where}{one.layer}.{one.head}", f"{one.value:+.6f}", bar)
    console.print(table)
    _say_cost(console, found)


def _say_cost(console: Terminal, found: Sweep) -> None:
    from rich.text import Text

    console.print(Text(f"Ran {found.rows:,} blocks; a loop of whole runs has {found.loop:,}.", "dim"))


def _share(value: float, largest: float) -> float:
    """An effect's size against the largest; a head that is not there is left unpainted."""
    return 0.0 if math.isnan(value) or not largest else min(1.0, abs(value) / largest)


def _sweep_json(
    found: Sweep, name: str, text: str, target: str | None, how: Literal["zero", "mean"] | str, top: int
) -> dict[str, Any]:
    tables = {
        kind: [[None if math.isnan(value) else value for value in row] for row in table.tolist()]
        for kind, table in found.tables.items()
    }
    strongest = [one._asdict() for one in found.strongest(top)]
    said = {"model": name, "text": text, "target": target, "how": how, "measure": found.measure.words}
    return {**said, "tables": tables, "strongest": strongest}


def _visible(text: str) -> str:
    """A token that can be seen: what is not printable is escaped, as \\n is."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text) or "␣"
