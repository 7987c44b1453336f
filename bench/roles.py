"""What do MiniLM's heads do? Its roles, on the habits of sentences, the grammar of EWT and the coreference of GAP.

    python -m bench.roles               everything (about 5 minutes on 2 cores)
    python -m bench.roles --quick       200 sentences and pairs, nothing is kept

Of each relation the head is chosen on the development part and measured on the test part, which it has not seen; the
fixed distance beside it is the best of the test part itself. The weights of BERT-base and GPT-2 are not at hand here,
so that the figures published for them (Clark et al. 2019, table 1; Olsson et al. 2022) cannot be checked against.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import clearhead
from bench.measure import keep
from clearhead.lens.roles import FirstToken, Roles, find

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def habits(lm: clearhead.Loaded) -> dict[str, Any]:
    """The best head of each habit, on the package's own sentences, for each way of treating the first token."""
    kept: dict[str, Any] = {}
    for choice in FirstToken:
        roles = find(lm, first_token=choice)
        kept[choice.value] = {
            one.role.value: {
                "best": "{}.{}".format(*one.best),
                "score": round(float(one.values.max()), 3),
                "chance": round(one.chance, 3),
                "heads": int(one.found.sum()),
            }
            for one in roles.scores
        }
    return kept


def relations(chosen: Roles, measured: Roles) -> list[dict[str, Any]]:
    """Relations whose head was found on one part, with what that head does on the other."""
    rows = []
    others = {(one.name, one.direction): one for one in measured.relations}
    for one in chosen.relations:
        other = others.get((one.name, one.direction))
        if other is None:
            continue
        layer, head = one.best
        rows.append(
            {
                "relation": f"{one.name} {one.direction}",
                "pairs": other.pairs,
                "head": f"{layer}.{head}",
                "right": round(100 * float(other.accuracy[layer, head]), 1),
                "distance": other.distance,
                "fixed": round(100 * other.baseline, 1),
                "found": bool(one.found[layer, head]),
            }
        )
    return rows


def coreference(chosen: Roles, measured: Roles) -> dict[str, Any]:
    """The head that finds names best on one part, and what it does on the other."""
    assert chosen.coreference is not None and measured.coreference is not None
    layer, head = chosen.coreference.best
    other = measured.coreference
    return {
        "head": f"{layer}.{head}",
        "pairs": other.pairs,
        "right": round(100 * float(other.accuracy[layer, head]), 1),
        "nearest": round(100 * other.nearest, 1),
        "chance": round(100 * other.chance, 1),
    }


def main() -> None:
    """Read, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 sentences and pairs, nothing is kept")
    limit = 200 if parser.parse_args().quick else 1000
    lm = clearhead.load("minilm")
    own = habits(lm)
    parts = [
        find(
            lm,
            treebank=SHARED / f"ud-ewt/en_ewt-ud-{tree}.conllu",
            coreference=SHARED / f"gap/gap-{gap}.tsv",
            limit=limit,
        )
        for tree, gap in (("dev", "development"), ("test", "test"))
    ]
    rows, names = relations(*parts), coreference(*parts)
    for row in rows:
        mark = "*" if row["found"] else " "
        print("{relation:<24}{pairs:>6}  {head:<5}{right:>6}  fixed {fixed:>5} at {distance:+d}".format(**row), mark)
    print("coreference", names)
    if limit == 1000:
        keep("roles", {"limit": limit, "habits": own, "relations": rows, "coreference": names})


if __name__ == "__main__":
    main()
