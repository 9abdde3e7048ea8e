"""A stand-in for transformer-engine, in plain PyTorch on a CPU. It has only the layers that a conversion and its
precision check use.

Tests with the stand-in don't prove that the real package, on CUDA, gives the same numbers.
"""

from . import common, pytorch  # noqa: F401

__version__ = "2.2.0"
