"""Freed memory: back with the system, and nothing but that."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tb_nanwatch.reading import memory
from tb_nanwatch.reading.memory import give_freed_memory_back, give_large_blocks_back

ROOT = Path(__file__).parents[2]
MB = 10**6
TIMEOUT_S = 60
# Between any two of the blocks stays a small one, so that none of those that are freed is the last of its heap.
PROGRAM = """
import os, sys
from pathlib import Path
from tb_nanwatch.reading.memory import give_freed_memory_back, give_large_blocks_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

calls, block = sys.argv[1], int(sys.argv[2])
bytearray(30_000_000)  # once it is freed, the C library takes blocks of up to this from its heap
if calls == "large":
    give_large_blocks_back()
begun = resident()
blocks, between = [], []
for _ in range(100_000_000 // block):
    blocks.append(bytearray(block))
    between.append(bytearray(2_000))
held = resident()
del blocks
if calls == "freed":
    give_freed_memory_back()
print(held - begun, resident() - begun)
"""
of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is the C library of GNU that keeps memory")


def held_and_kept(calls, *, block):
    command = [sys.executable, "-c", PROGRAM, calls, str(block)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    held, kept = map(int, ran.stdout.split())
    assert held > 90 * MB
    return kept


@of_glibc
def test_a_large_block_goes_back_when_it_is_freed():
    assert held_and_kept("nothing", block=1_000_000) > 80 * MB
    assert held_and_kept("large", block=1_000_000) < 20 * MB


@of_glibc
def test_small_blocks_go_back_when_they_are_given_back():
    assert held_and_kept("nothing", block=50_000) > 80 * MB
    assert held_and_kept("freed", block=50_000) < 20 * MB


@pytest.mark.parametrize("give_back", [give_large_blocks_back, give_freed_memory_back])
@pytest.mark.parametrize("library", [None, SimpleNamespace()], ids=["none", "another"])
def test_where_the_library_has_no_such_function_nothing_happens(monkeypatch, give_back, library):
    monkeypatch.setattr(memory, "_library", lambda: library)
    give_back()


def test_no_library_is_looked_for_but_on_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._library.__wrapped__() is None
