"""Processes of their own: clearhead as a user starts it, or a script of the tests; one, or several by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def started(*words: object, n: int | None = None, restarts: int = 0, cwd: Path | None = None) -> subprocess.Popen[str]:
    """`python WORDS`, such as `-m clearhead train …`; or n processes of it, all started again so often where one dies.

    They have a session of their own, so that a signal to them does not reach the tests.
    """
    command = [sys.executable]
    if n is not None:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
        command += [f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    return subprocess.Popen(
        [*command, *map(str, words)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(*words: object, n: int | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same, once it has come to its end."""
    with started(*words, n=n, cwd=cwd) as process:
        try:
            said, told = process.communicate(timeout=300)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, said, told)
