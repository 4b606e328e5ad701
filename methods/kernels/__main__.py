"""Builds the kernels of masked weights, and prints which backend computes them on the CPU."""

import sys

from methods import kernels

try:
    print(f"masked weights on the CPU: {kernels.path('cpu')}")
except (ValueError, RuntimeError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
