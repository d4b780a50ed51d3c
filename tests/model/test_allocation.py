"""What a network's layer frees is there for the next, without a fault of a page."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

LAYERS = """
import resource, numpy as np
from guardkit.model.allocation import keep_freed_memory
print(int(keep_freed_memory()))
def layer():
    a = np.ones(3_000_000, np.float32)
    b = a + 1
    return float(b[-1])
layer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    assert layer() == 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
#: Page faults that may happen for other reasons.
FEW = 100


def run(**more: str) -> tuple[bool, int]:
    """Return whether memory is kept, and the page faults of 20 layers of 24 MB."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", LAYERS], env={**env, **more}, capture_output=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept == b"1", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_layers_of_the_same_size_meet_memory_that_is_there() -> None:
    kept, faults = run()
    assert kept
    assert faults < FEW


def test_who_sets_mallocs_options_keeps_them() -> None:
    kept, faults = run(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert not kept
    if sys.platform == "linux":
        assert faults > FEW  # thousands, or hundreds where the kernel hands out huge pages


def test_a_loaded_model_keeps_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import guardkit
    from guardkit.model import loaded

    calls = []
    monkeypatch.setattr(loaded, "keep_freed_memory", lambda: calls.append(1))
    guardkit.load_model("builtin:mdlm/injection")
    assert calls
