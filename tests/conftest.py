"""One thread for every test: the networks are small, and equal bits need equal thread counts."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
