"""One thread for every test: the networks are small, and equal bits need equal thread counts. No MLflow unasked."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("BENCH_NO_MLFLOW", "1")
