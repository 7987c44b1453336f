"""Calling a command in this process, and what it said; a folder in which nothing may be left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from clearhead.cli import main
from tests.cli.small import small

__all__ = ["small"]


@dataclass
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("look", "text", columns=100)`: exit code, stdout and stderr."""

    def call(*arguments: object, columns: int = 100) -> Said:
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def refuse(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command that must be refused: one line on stderr, which it gives back; exit code 2; nothing written."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*arguments: object) -> str:
        before = _files(tmp_path)
        said = run(*arguments)
        assert said.code == 2
        assert said.out == ""
        assert said.err.startswith("clearhead: ") and said.err.count("\n") == 1, said.err
        assert _files(tmp_path) == before
        return said.err

    return call


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
