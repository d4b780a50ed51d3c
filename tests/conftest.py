"""One thread a process: small networks gain nothing from a second, and wait for it when busy."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, here and in children
