"""Files that are written whole, or not at all: two writers at once, and what was there before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clearhead.errors import LensError
from clearhead.lens.ways_out import outputs
from clearhead.lens.ways_out.outputs import check_path, whole_or_nothing


def test_two_that_write_one_file_at_once_do_not_meet(tmp_path: Path) -> None:
    """In one process, too: each is whole, and the last to end stays."""
    path = tmp_path / "look.npz"
    with whole_or_nothing(path) as first:
        first.write(b"fir")
        with whole_or_nothing(check_path(path)) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
        first.write(b"st")
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == [path.name]


def test_what_others_have_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, theirs = tmp_path / "look.npz", tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    monkeypatch.setattr(outputs, "_beside", lambda path: theirs)
    with pytest.raises(LensError, match="cannot be written"), whole_or_nothing(path):
        pytest.fail("it was opened over theirs")
    with pytest.raises(LensError, match="cannot be written"):
        check_path(path)
    assert theirs.read_bytes() == b"theirs" and not path.exists()


def test_a_mistake_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "look.npz"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), whole_or_nothing(path) as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == [path.name]
