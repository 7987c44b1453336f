"""Probes. The texts on which heads show what they do: plain sentences, and random tokens read twice.

A role is a habit, so it has to be seen on text. Sentences come with the package (or from a file, or from the treebank);
random tokens twice have no meaning to go by, so that whoever reads the earlier copy does so because it is a copy
(Olsson et al. 2022).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from clearhead.errors import InputError
from clearhead.lens.look import Encoded, Tokenizing
from clearhead.lens.measures.heads import is_separator

RARE_SHARE = 0.2
"""At most this share of a text's tokens are its rare ones; a text whose rarest tokens are more has none."""

SENTENCES = (
    "The old man sat by the river and watched the boats go by, as he had done on every day of the summer.",
    "She put the letter on the table, took her coat and went out; the saxophone was on the chair by the door.",
    "When the children came home from the school, the dog was on the table and the cake was on the floor.",
    "The king gave the letter to the old woman, and she read it to the children by the river.",
    "It was a cold day, and the boats on the river were white; the old man put on his coat and went home.",
    "The woman with the dog said that the summer had been cold, but the man by the door did not hear her.",
    "On the first day of school the teacher gave every child a book, a red pencil and a quetzal.",
    "The cake on the table was for the king, so the children did not take it; they sat on the floor and read.",
    "He had read the book on the boats, and it said that the river was cold on every day of the year.",
    "The teacher said that the dog was old, that the door was red, and that the children were home.",
    "She did not hear the man at the door, for the children were by the river and the dog was with her.",
    "The old king sat on the floor with a rhubarb cake, and every child in the school came to watched it go.",
    "In the summer the woman put the red chair by the river and read a book with her coat on.",
    "The man who had the letter went to the school, but the teacher was not home and the door was white.",
    "A dog came to the table and took the cake; it was the first cake of the year, and the king sat by it.",
    "Every day the boats came by, and every day the old woman watched them go home on the cold river.",
    "The child had a white coat and a red book, and a xylophone that she put by the door of the school.",
    "They said that the letter was for the teacher, but he gave it to the man with the old dog.",
    "The first book was on the chair, the red one was on the floor, and the king had the white one.",
    "When the cold came, the children took the boats home, and the river was white for the year.",
)
"""Twenty sentences that share their words, but for a rare one here and there."""


@dataclass(frozen=True)
class Probe:
    """A text as it is fed to a model, and what is known of its tokens."""

    ids: list[int]
    special: list[bool]
    separators: list[bool]
    type_ids: list[int]
    offsets: list[tuple[int, int]] = field(default_factory=list)
    text: str = ""
    rare: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


def probe(tokenizer: Tokenizing, text: str) -> Probe:
    """A text, encoded whole."""
    encoding = tokenizer.encode(text)
    special = specials(encoding)
    labels = zip(encoding.labels, special, strict=True)
    return Probe(
        ids=list(encoding.ids),
        special=special,
        separators=[at > 0 and is_separator(label, flag) for at, (label, flag) in enumerate(labels)],
        type_ids=list(encoding.type_ids),
        offsets=list(encoding.offsets),
        text=text,
    )


def specials(encoding: Encoded) -> list[bool]:
    """Which tokens were put around the text, or spell no part of it."""
    return [a == b for a, b in encoding.offsets]


def with_rare(probes: Sequence[Probe]) -> list[Probe]:
    """The same, their rarest tokens marked: those that all these texts together have least often.

    Of each text the tokens with the lowest counts, as many as make no more than `RARE_SHARE` of it; ties stand or fall
    together, so that a text in which too many are equally rare has none.
    """
    counts = Counter(id for one in probes for id in one.ids)
    marked = []
    for one in probes:
        words = [id for id, special in zip(one.ids, one.special, strict=True) if not special]
        most, limit = RARE_SHARE * len(words), 0
        for count in sorted({counts[id] for id in words}):
            if sum(counts[id] <= count for id in words) > most:
                break
            limit = count
        flags = zip(one.ids, one.special, strict=True)
        marked.append(replace(one, rare=[not special and counts[id] <= limit for id, special in flags]))
    return marked


def read_texts(path: Path) -> list[str]:
    """The texts of a file, one a line. Raises InputError where there is none."""
    lines = [line.strip() for line in lines_of(path)]
    found = [line for line in lines if line]
    if not found:
        raise InputError(f"{path} has no text; give a file with one text a line.")
    return found


def lines_of(path: Path) -> list[str]:
    """The lines of a UTF-8 file. Raises InputError where it is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # which makes one line end of all that there are
        return text.removesuffix("\n").split("\n") if text else []
    except FileNotFoundError:
        raise InputError(f"there is no file {path}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a file in it.") from None
    except UnicodeDecodeError as problem:
        raise InputError(f"{path} is not UTF-8 text (byte {problem.start}); convert it first.") from None
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}.") from None


# ── random tokens, twice ─────────────────────────────────────────────────────────────────────────────────────────

PERIODS = (50, 44, 38, 32)
"""How many random tokens are read twice. They differ, so that no head passes by reading at a fixed distance."""


def repeats(
    vocabulary: Sequence[int],
    *,
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    context: int | None = None,
    texts: int = 8,
    seed: int = 0,
) -> list[Probe]:
    """Texts of n different random tokens, read twice, between `before` and `after` (a tokenizer's special tokens).

    vocabulary: the ids to draw from. context: the longest text that the model reads; the periods shrink to fit. The
    same arguments give the same texts. Raises InputError where fewer than 4 tokens could be drawn.
    """
    room = len(PERIODS) * 4 + max(PERIODS) * 2 if context is None else context - len(before) - len(after)
    largest = min(max(PERIODS), room // 2, len(vocabulary))
    if largest < 4:
        raise InputError("repeated texts need room for twice 4 tokens, and 4 different ones; this model has less.")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(texts):
        n = max(3, round(PERIODS[number % len(PERIODS)] * largest / max(PERIODS)))
        drawn = [vocabulary[at] for at in torch.randperm(len(vocabulary), generator=generator)[:n].tolist()]
        ids = [*before, *drawn, *drawn, *after]
        special = [True] * len(before) + [False] * (2 * n) + [True] * len(after)
        separators = [at > 0 and flag for at, flag in enumerate(special)]
        found.append(Probe(ids=ids, special=special, separators=separators, type_ids=[0] * len(ids)))
    return found


def frame(tokenizer: Tokenizing) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    encoding = tokenizer.encode("a")
    special = specials(encoding)
    own = [at for at, flag in enumerate(special) if not flag]
    if not own:
        return [], []
    return list(encoding.ids[: own[0]]), list(encoding.ids[own[-1] + 1 :])


def ordinary(vocab_size: int, special: Iterable[int]) -> list[int]:
    """The ids to draw from: all but the special ones."""
    out = set(special)
    return [id for id in range(vocab_size) if id not in out]
