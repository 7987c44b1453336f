"""As given: what the data says in its own letters, of documents that a cache holds as ids. Ids that are decoded again
are another text: a tokenizer may lower-case, drop accents, or not know a word. What is measured against a text, or by
its bytes, goes back to the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from clearhead.errors import TrainingError
from clearhead.train.data.cache import Cache
from clearhead.train.data.encoders import Encoder
from clearhead.train.data.hashes import hashes, still
from clearhead.train.data.packing import Rows
from clearhead.train.data.rows import Found, Source


@dataclass(frozen=True)
class AsGiven:
    """The documents behind some rows. rows: those rows, and which documents each has ids of; cache: the ids, made from
    `source` by `encoder`."""

    source: Source
    encoder: Encoder
    cache: Cache
    rows: Rows

    def documents(self, rows: Collection[int]) -> set[int]:
        """The numbers of the documents that these rows have ids of."""
        return {document for row in rows for document in self.rows.documents(row)}

    def last_texts(self, documents: Collection[int]) -> dict[int, str]:
        """The last of each document's texts: of a translation what is to be written. Raises as `_parts` does."""
        return {number: text for number, texts in self._parts(documents) for text in texts[-1:]}

    def n_bytes(self, documents: Collection[int]) -> Mapping[int, int]:
        """The bytes of each document's texts in UTF-8. Raises as `_parts` does."""
        found: Counter[int] = Counter()
        for number, texts in self._parts(documents):
            found[number] += sum(len(text.encode()) for text in texts)
        return found

    def _parts(self, documents: Collection[int]) -> Iterator[tuple[int, list[str]]]:
        """The texts of these documents, a long one in parts, from the end of the data backwards, which is where rows
        are held out: no more than that is read. Raises TrainingError for files that are no longer what they were."""
        if not documents:
            return
        if hashes(still(self.source), self.cache.folder.parent) != self.cache.manifest["files"]:
            names = ", ".join(map(str, self.source.files()[:3]))
            raise TrainingError(
                f"{names}: the data is not what it was when it was tokenised, so what is held out cannot be measured "
                "against its texts; name files to evaluate the model on."
            )
        reader, after, first = self.source.open(), len(self.cache), min(documents)
        for piece in reversed(reader.pieces()):
            if after <= first:
                return
            rows = [each for each in reader.read(piece) if isinstance(each, Found)]
            after -= sum(each.first for each in rows)  # documents that begin in pieces not read yet
            number = after - 1
            for each in rows:
                number += each.first
                if number in documents:
                    yield number, list(self.encoder.texts(each.row))
