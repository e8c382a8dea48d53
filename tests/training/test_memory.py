import ctypes
import os
import platform
import subprocess
import sys

import pytest

from sparcl_lib.training import memory
from sparcl_lib.training.memory import keep_freed_memory

FAULTS = """
import resource, sys, torch
from sparcl_lib.training.memory import keep_freed_memory
kept = sys.argv[1] == "kept" and keep_freed_memory()
torch.ones(2**24).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(2**24).sum()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is about glibc")
def test_large_tensors_get_the_same_pages_again():
    def run(word: str) -> tuple[str, int]:
        command = [sys.executable, "-c", FAULTS, word]
        kept, faults = subprocess.check_output(command, text=True).split()
        return kept, int(faults)

    (asked, few), (_, many) = run("kept"), run("new")
    pages = 8 * 2**26 // os.sysconf("SC_PAGESIZE")
    assert asked == "True" and few < pages / 4 and many > pages / 2


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", None)  # nobody is asked
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert not keep_freed_memory()


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not keep_freed_memory()


def test_a_glibc_that_refuses_large_thresholds_maps_nothing(monkeypatch):
    asked = []

    class Older:
        @staticmethod
        def mallopt(option, value):
            asked.append((option, value))
            return int(option != -3)

    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Older)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    assert keep_freed_memory()
    assert asked == [(-3, 2**31 - 1), (-4, 0), (-1, 2**31 - 1)]
