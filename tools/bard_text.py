"""Makes the text that `bard` learns from: English in the public domain, and a fixed twentieth of it held out.

    .venv/bin/python tools/bard_text.py ../shared/data runs/bard-text

Reads, in the folder it is given: kjv/kjv.txt (the King James Bible, a verse a line), tinyshakespeare.txt (plays),
nltk/shakespeare.zip (seven more, without their stage directions; Romeo and Juliet, the eighth, is in tinyshakespeare),
nltk/inaugural.zip and nltk/state_union.zip (presidents' speeches, without "(Applause.)"). Writes train.txt and
held-out.txt: each source is cut into stretches of about 8,000 characters, where a line or a speech ends, and every
twentieth stretch is held out. The same files give the same bytes; their SHA-256 is printed, and stands on bard's card.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

STRETCH, EVERY, FIRST = 8000, 20, 10
"""Characters of a stretch; every so manieth is held out, beginning with this one."""

PLAYS = ("a_and_c", "dream", "hamlet", "j_caesar", "macbeth", "merchant", "othello")
PLAIN = str.maketrans({"—": "--", "–": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "\xa0": " "})
HEARD = re.compile(r" *[\[(](?:applause|laughter)\.?[\])]", re.IGNORECASE)


def plain(text: str) -> str:
    """The text in ASCII, lines without blanks at their ends, never two empty lines together."""
    text = HEARD.sub("", text.replace("\r\n", "\n").translate(PLAIN)).encode("ascii", "ignore").decode()
    text = re.sub(r"[^\n\x20-\x7e]+", " ", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +\n", "\n", text)).strip()


def bible(folder: Path) -> str:
    """A verse a line."""
    return plain((folder / "kjv" / "kjv.txt").read_text("utf-8"))


def plays(folder: Path) -> Iterator[str]:
    """Who speaks, a colon, the lines, an empty line: as tinyshakespeare.txt has it."""
    yield plain((folder / "tinyshakespeare.txt").read_text("utf-8"))
    with zipfile.ZipFile(folder / "nltk" / "shakespeare.zip") as archive:
        for name in PLAYS:
            root = ElementTree.fromstring(archive.read(f"shakespeare/{name}.xml"))
            speeches = (
                ["\n".join(f"{_text(one)}:" for one in speech.iter("SPEAKER")), *map(_text, speech.iter("LINE"))]
                for speech in root.iter("SPEECH")
            )
            yield plain("\n\n".join("\n".join(lines) for lines in speeches))


def _text(element: ElementTree.Element) -> str:
    """The words of a line, without the stage directions inside it."""
    return "".join([element.text or "", *(inner.tail or "" for inner in element)]).strip()


def speeches(folder: Path, name: str) -> Iterator[str]:
    """Speeches of one corpus, by year."""
    with zipfile.ZipFile(folder / "nltk" / f"{name}.zip") as archive:
        for path in sorted(each for each in archive.namelist() if each.endswith(".txt")):
            content = archive.read(path)
            try:
                yield plain(content.decode("utf-8"))
            except UnicodeDecodeError:
                yield plain(content.decode("cp1252", "ignore"))


def stretches(text: str) -> Iterator[str]:
    """The text in parts of about `STRETCH` characters; of a play or a speech, cut at an empty line if there is one."""
    start = 0
    while start < len(text):
        stop = start + STRETCH
        if stop >= len(text):
            stop = len(text)
        else:
            empty, line = text.find("\n\n", stop, stop + 2000), text.find("\n", stop)
            stop = empty if empty >= 0 else line if line >= 0 else len(text)
        yield text[start:stop].strip("\n")
        start = stop + 1


def main() -> None:
    """Write both files, and tell of them."""
    if len(sys.argv) != 3:
        sys.exit("give the folder of the data and one to write to: tools/bard_text.py ../shared/data runs/bard-text")
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    sources = {
        "King James Bible": [bible(data)],
        "Shakespeare": list(plays(data)),
        "inaugural addresses": list(speeches(data, "inaugural")),
        "addresses to Congress": list(speeches(data, "state_union")),
    }
    parts: dict[str, list[str]] = {"train": [], "held-out": []}
    for name, texts in sources.items():
        print(f"{name:24}{sum(map(len, texts)):>12,} characters in {len(texts)} texts")
        cut = [stretch for text in texts for stretch in stretches(text) if stretch]
        for number, stretch in enumerate(cut):
            parts["held-out" if number % EVERY == FIRST else "train"].append(stretch)
    out.mkdir(parents=True, exist_ok=True)
    for part, kept in parts.items():
        content = ("\n\n".join(kept) + "\n").encode()
        (out / f"{part}.txt").write_bytes(content)
        told = hashlib.sha256(content).hexdigest()
        print(f"{out / part}.txt: {len(kept)} stretches, {len(content):,} bytes, sha256 {told}")


if __name__ == "__main__":
    main()
