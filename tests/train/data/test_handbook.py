"""Python's own reference as data: every topic once, in one order, whatever the Python."""

from __future__ import annotations

import pytest

from clearhead.errors import TrainingError
from clearhead.train.data import handbook
from clearhead.train.data.handbook import Handbook
from clearhead.train.data.rows import Found, Source


def test_every_topic_is_a_document() -> None:
    from pydoc_data.topics import topics

    source: Source = Handbook()
    reader = source.open()
    rows = [found for piece in reader.pieces() for found in reader.read(piece) if isinstance(found, Found)]
    assert len(rows) == len(topics) and sum(len(row.row["text"]) for row in rows) > 300_000
    assert rows[0].row["text"].strip() == topics[min(topics)].strip() and "topics.py, row 0" in rows[0].where()
    assert source.files()[0].name == "topics.py" and source.identity() == {"kind": "Handbook"}


def test_a_python_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handbook, "MODULE", "pydoc_data.nothing")
    with pytest.raises(TrainingError, match=r"has no pydoc_data\.nothing; give a text of your own"):
        Handbook().files()
