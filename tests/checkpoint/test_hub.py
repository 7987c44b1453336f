"""The hub's client brings its own HTTP client; ours must not ask for another."""

from __future__ import annotations

import subprocess
import sys


def test_a_misspelt_name_is_one_line_without_the_libraries_of_the_tests() -> None:
    """In the environment that `make explore` builds there is no httpx, and an unknown name is still answered."""
    code = (
        "import sys\n"
        "sys.modules['httpx'] = sys.modules['transformers'] = None\n"
        "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "import clearhead\n"
        "try:\n    clearhead.load('nosuch')\n"
        "except clearhead.ClearheadError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "minilm, alice" in done.stdout and len(done.stdout.splitlines()) == 1
