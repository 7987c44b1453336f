"""A real explorer in a process of its own, on a free port, for the tests that need one to connect to."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

STUBBED = (
    "import clearhead.serve.explorer as e, tests.serve.stub as s; "
    "e._from_checkpoint = s.load; e._embedded = lambda: tuple(s.CONFIGS); "
)
SERVE = "from clearhead.serve import serve; serve({model!r}, port=0, open_browser=False{more})"


class Running:
    """The process, the lines it has printed, and the address among them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines, self.url = process, list[str](), ""
        self._arriving: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        while not self.url:
            line = self._arriving.get(timeout=90)
            assert line, f"the server ended: {self.lines}"
            if line.startswith("http://"):
                self.url = line.split()[0]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._arriving.put(line)
        self._arriving.put("")

    def interrupt(self) -> int:
        """Ctrl-C, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=20)
        self._reader.join(timeout=20)
        return code


@contextmanager
def running(model: str, **more: object) -> Iterator[Running]:
    """The explorer on `model`, a tiny one of `stub.py` or one that `clearhead.load` knows. more: to `serve`."""
    from tests.serve.stub import CONFIGS

    code = (STUBBED if model in CONFIGS else "") + SERVE.format(
        model=model, more="".join(f", {name}={value!r}" for name, value in more.items())
    )
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
    )
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
