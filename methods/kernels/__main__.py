"""Builds the kernels of masked weights, and says which path computes them on the CPU."""

import sys

from methods import kernels

try:
    print(f"masked weights on the CPU: {kernels.path('cpu')}")
except (ValueError, RuntimeError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
