"""What is imported when: torch neither with the package nor for any help. Times are measured by bench/startup.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clearhead.cli import COMMANDS

HEAVY = ("torch", "numpy", "tokenizers", "huggingface_hub", "starlette", "uvicorn", "transformers")


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh Python has after running `code`."""
    code += "\nimport sys; print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("code", ["import clearhead", "from clearhead import cli; cli.main(['--help'])"])
def test_nothing_heavy(code: str) -> None:
    assert loaded_after(code).isdisjoint((*HEAVY, "typer", "rich", "jaxtyping"))


def test_help_of_each_command_imports_no_torch() -> None:
    calls = "; ".join(f"cli.main([{name!r}, '--help'])" for name in COMMANDS)
    assert loaded_after(f"from clearhead import cli; {calls}").isdisjoint(HEAVY)
