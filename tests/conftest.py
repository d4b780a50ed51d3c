"""What every test has in common."""

import gc
import os

from hypothesis import settings

# Small networks gain nothing from a second thread, and wait for it where the machine is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, here and in children

# How long one example takes says how busy the machine is, not whether the code is right.
settings.register_profile("guardkit", deadline=None)
settings.load_profile("guardkit")


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of garbage collections: some tests make hundreds."""
    gc.collect()
    gc.freeze()
