"""Making a cache: stopped, out of room, and slow; it is whole or not there, and nobody is left at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clearhead.train.data import prepare
from clearhead.train.data.encoders import Text
from clearhead.train.data.readers import GivenRows
from tests.train.data.support import bytes_tokenizer

CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that began the tests in the background ignores it
from pathlib import Path
from clearhead.train.data.encoders import Text
from clearhead.train.data.prepare import prepared
from tests.train.data.support import SlowRows, bytes_tokenizer
try:
    rows = [{"text": f"row {n}"} for n in range(40_000)]
    prepared(SlowRows(rows), bytes_tokenizer(), Text(), folder=Path(sys.argv[1]), workers=int(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def running(word):
    """The processes whose command line has a word in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if word.encode() in path.read_bytes() else []
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_no_half_cache_and_no_process(tmp_path, workers):
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("processes are looked up in /proc, which is not here")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.Popen(
        [sys.executable, "-c", CTRL_C, str(tmp_path), str(workers)],
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
    )
    while not list(tmp_path.glob(".*.tmp/tokenizer")) or len(running(str(tmp_path))) < workers + (workers > 1):
        assert run.poll() is None
    time.sleep(0.5)  # in the middle of it
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    said = run.communicate(timeout=60)[1].decode()
    assert run.returncode == 130 and said == ""
    assert not [each for each in tmp_path.iterdir() if each.is_dir()]
    assert running(str(tmp_path)) == []


DISK_FULL = """
import resource, sys
from pathlib import Path
from clearhead.errors import TrainingError
from clearhead.train.data.encoders import Text
from clearhead.train.data.prepare import prepared
from clearhead.train.data.readers import GivenRows
from tests.train.data.support import bytes_tokenizer
tokenizer = bytes_tokenizer()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
rows = GivenRows([{"text": f"row {n} of many that fill the disk"} for n in range(8_000)])
try:
    prepared(rows, tokenizer, Text(), folder=Path(sys.argv[1]), workers=int(sys.argv[2]), quiet=True)
except TrainingError as error:
    print(error)
"""


@pytest.mark.parametrize(("workers", "room"), [(1, 300_000), (2, 50_000)])  # all parts but not the whole; not a part
def test_a_disk_that_fills_up_is_said_and_leaves_nothing(tmp_path, workers, room):
    """A limit on the size of files stands in for it: any write may be the one that fails."""
    pytest.importorskip("resource", reason="this system sets no limits on files")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", DISK_FULL, str(tmp_path), str(workers), str(room)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "the cache cannot be written in" in run.stdout and "; make room, or give another folder" in run.stdout
    assert run.stdout.count("\n") == 1 and run.stderr == ""
    assert not [each for each in tmp_path.iterdir() if each.is_dir()]


def test_progress_is_told_of_what_takes_long(tmp_path, monkeypatch, capsys):
    """With the number of processes; nothing in between of what is quick."""
    clock = iter(range(0, 10**6, 4))
    source = GivenRows([{"text": f"row {n}"} for n in range(9000)])
    prepare.prepared(source, bytes_tokenizer(), Text(), folder=tmp_path / "quick", workers=2)
    quick = capsys.readouterr().err
    assert quick.count("\n") == 1 and quick.startswith("tokenised 9,000 rows to ") and "by 2 processes" in quick
    monkeypatch.setattr(prepare.time, "monotonic", lambda: next(clock))
    prepare.prepared(source, bytes_tokenizer(), Text(), folder=tmp_path / "slow", workers=1)
    *between, last = capsys.readouterr().err.splitlines()
    assert between and all("tokenising in 1 process: " in line and "s left" in line for line in between)
    assert "MB" in between[0] and "by 1 process" in last
