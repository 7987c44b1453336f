"""How often is `dates` right? The share of dates that it writes to the letter, by family of styles.

    python -m bench.dates [MODEL]            1,000 dates of each family: about a minute on 2 cores
    python -m bench.dates [MODEL] --quick    100 of each, nothing is kept

Of each family, dates whose days training never showed, in styles that it did; and dates whose days and styles both are
new. MODEL is `dates` unless given, or a folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import count, islice

import clearhead
from bench.measure import keep
from clearhead.train.data.dates import LAYOUTS, Example, Part, example

SEED = 20_260_303


def of_family(family: str, part: Part, seed: int = SEED) -> Iterator[Example]:
    """The examples of a part that are of this family, without end."""
    return (made for made in (example(seed, n, part) for n in count()) if made.style.family == family)


def right(lm: clearhead.Loaded, examples: list[Example]) -> list[bool]:
    """Whether each is written to the letter."""
    by_length = sorted(range(len(examples)), key=lambda at: len(examples[at].text))
    said: dict[int, str] = {}
    for start in range(0, len(by_length), 200):
        places = by_length[start : start + 200]
        written = lm.generate([examples[at].text for at in places], max_new_tokens=12)
        said.update(zip(places, written, strict=True))
    return [said[at] == made.iso for at, made in enumerate(examples)]


def main() -> None:
    """Measure, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="dates")
    parser.add_argument("--quick", action="store_true", help="100 of each family; nothing is kept")
    asked = parser.parse_args()
    lm = clearhead.load(asked.model)
    number = 100 if asked.quick else 1000
    shares: dict[str, dict[str, float]] = {}
    print(f"{'family':28}{'new days':>10}{'new days and styles':>22}")
    for family in LAYOUTS:
        shares[family] = {}
        for part in ("new-days", "new-styles"):
            examples = list(islice(of_family(family, part), number))
            hits = right(lm, examples)
            shares[family][part] = sum(hits) / len(hits)
            for made, hit in zip(examples, hits, strict=True):
                if not hit:
                    print(f"  {made.text!r} is {made.iso}; written: {lm.generate(made.text)!r}")
        print(f"{family:28}{shares[family]['new-days']:>10.2%}{shares[family]['new-styles']:>22.2%}")
    means = {part: sum(share[part] for share in shares.values()) / len(shares) for part in ("new-days", "new-styles")}
    print(f"{'all':28}{means['new-days']:>10.2%}{means['new-styles']:>22.2%}")
    if not asked.quick and asked.model == "dates":
        keep("dates", {"of each": number, "right": shares, "mean": means})


if __name__ == "__main__":
    main()
