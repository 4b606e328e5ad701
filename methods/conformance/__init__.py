"""The checks that every method must pass, one from here or a plug-in's.

methods.conformance.check_method("my_method", level="full")
"""

from methods.conformance.check import ConformanceError, check_method

__all__ = ["ConformanceError", "check_method"]
