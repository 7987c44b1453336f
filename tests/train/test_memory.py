"""Memory that is kept: a block that was freed is had again without a page being cleared."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from clearhead.train import memory

FAULTS = """
import resource, sys
from clearhead.train.memory import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * 2**26  # 16,384 pages of 4 KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_what_is_freed_is_had_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory.OWN:
        monkeypatch.delenv(name, raising=False)

    def faults(how: str) -> int:
        told = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(told.stdout)

    assert faults("kept") < 1000 < faults("as it is")


def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert memory.keep_freed() is False


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_freed() is False
