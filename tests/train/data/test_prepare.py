"""Making a cache: stopped, out of room, and slow; it is whole or not there, and nobody is left at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clearhead.errors import TrainingError
from clearhead.train.data import files, prepare
from clearhead.train.data.encoders import Text
from clearhead.train.data.readers import GivenRows, TextLines
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


@pytest.mark.parametrize("when", ["hashed", "tokenised", "joined by another"])
@pytest.mark.parametrize("age", [0, 3600])
def test_data_that_is_written_to_while_it_is_read_is_refused(tmp_path, monkeypatch, when, age):
    """Else the cache of what was there in the end would have the name of what was there before."""
    (tmp_path / "data").mkdir()
    path, text = tmp_path / "data" / "a.txt", "a line\n" * 50
    path.write_text(text)
    source = TextLines(paths=(str(path.parent),))

    def grows(*_):
        if when == "joined by another":
            (tmp_path / "data" / "b.txt").write_text(text)
        else:
            with path.open("a") as file:
                file.write("one more\n")

    place, name = (files, "digest") if when == "hashed" else (prepare, "_make")
    real = getattr(place, name)
    os.utime(path, (time.time() - age,) * 2)
    with monkeypatch.context() as patched:
        patched.setattr(place, name, lambda *a: (real(*a), grows())[0])
        with pytest.raises(TrainingError, match=r"[ab]\.txt .* while the data was read.*; wait until the data is all"):
            prepare.prepared(source, bytes_tokenizer(), Text(), folder=tmp_path / "cache", quiet=True)
    assert not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]
    cache = prepare.prepared(source, bytes_tokenizer(), Text(), folder=tmp_path / "cache", quiet=True)
    lines = "".join(each.read_text() for each in sorted(path.parent.iterdir())).splitlines()
    assert [bytes(row["ids"][:-1].tolist()).decode() for row in cache] == lines
    assert cache.manifest["files"] == [files.digest(each) for each in sorted(path.parent.iterdir())]


def test_the_same_size_within_a_tick_of_the_clock_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    now = path.stat().st_mtime_ns
    real = prepare._make

    def changed(*a):
        path.write_text("two\n")
        os.utime(path, ns=(now, now))
        real(*a)

    monkeypatch.setattr(prepare, "_make", changed)
    with pytest.raises(TrainingError, match=r"a\.txt was written to while"):
        prepare.prepared(TextLines(paths=(str(path),)), bytes_tokenizer(), Text(), folder=tmp_path / "c", quiet=True)
