"""The checks that every method must pass, whether it comes from this package or from a plug-in.

methods.conformance.check_method("my_method", level="full")
"""

from methods.conformance.check import ConformanceError, Finding, check_method, check_names, examine

__all__ = ["ConformanceError", "Finding", "check_method", "check_names", "examine"]
