"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from jinyong_gpt2.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    torch.zeros(1 << 24)  # 64 MB: 16,384 pages

for _ in range(6):  # until the block has found its place in the heap
    step()
before = faults()
for _ in range(4):
    step()
print(faults() - before)
"""


def page_faults(how):
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt's settings")
def test_a_freed_block_is_used_again_without_new_pages():
    kept, returned = page_faults("keep"), page_faults("return")
    assert kept < 1000 < returned


def test_another_c_library_is_left_alone(monkeypatch):
    from jinyong_gpt2.allocator import keep_freed_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
