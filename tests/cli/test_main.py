"""The frame around the commands: help, versions, mistakes, Ctrl-C, a reader that goes away, and our own bugs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import clearhead
from clearhead import cli
from clearhead.errors import InputError
from tests.cli.conftest import Run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(run: Run, arguments: list[str]) -> None:
    said = run(*arguments)
    assert said.code == 0 and said.err == ""
    for name, line in cli.COMMANDS.items():
        assert f"  {name}" in said.out and line in said.out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help(run: Run, name: str) -> None:
    said = run(name, "--help")
    assert said.code == 0 and said.out.startswith(f"Usage: clearhead {name}") and said.err == ""


def test_version(run: Run) -> None:
    assert run("--version").out == f"clearhead {clearhead.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lok", "a"], "did you mean 'look'?"),
        (["--versoin"], "no option '--versoin'"),
        (["\x1b[31mlook\n"], "there is no command"),
        (["look"], "text"),
        (["look", "a", "--\x1b[31m\n"], "No such option"),
        (["look", "a", "--layer", "five"], "--layer"),
        (["look", "a", "--nonsense"], "--nonsense"),
        (["look", "a", "--kind", "sideways"], "--kind"),
        (["look", "a", "--layer", "1"], "--layer and --head go together"),
        (["look", "a", "--layer", "1", "--head", "1", "--ask", "a", "b"], "leave --layer and --head out"),
        (["generate", "a", "--temperature", "-1"], "--temperature"),
        (["export", "minilm"], "folder"),
    ],
)
def test_a_wrong_call_is_one_line(refuse, arguments: list[str], words: str) -> None:  # type: ignore[no-untyped-def]
    assert words in refuse(*arguments)


def _raise(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(clearhead, "load", load, raising=False)


def test_a_message_of_several_lines_becomes_one(refuse, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    _raise(monkeypatch, InputError("this is\n  wrong"))
    assert refuse("look", "a") == "clearhead: this is wrong\n"


def test_ctrl_c_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise(monkeypatch, KeyboardInterrupt())
    said = run("look", "a")
    assert (said.code, said.out, said.err) == (130, "", "")


def test_our_own_bugs_keep_their_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise(monkeypatch, ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        run("look", "a")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_trouble(
    run: Run, small: None, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return nowhere

    with open(os.devnull, "w") as spare:
        nowhere = spare.fileno()
        monkeypatch.setattr(sys, "stdout", Closed())
        said = run("look", "a cat sat", "--model", "encoder", *more)
        monkeypatch.undo()
    assert (said.code, said.err) == (cli.PIPE_CLOSED, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "clearhead", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr and len(done.stderr.splitlines()) == 1
