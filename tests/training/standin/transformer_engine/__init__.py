"""A stand-in for transformer-engine, in plain PyTorch on a CPU: the layers that a conversion and its precision check
use, no more.

It is no substitute: nothing here says that the real package, on CUDA, gives the same numbers.
"""

from . import common, pytorch  # noqa: F401

__version__ = "2.2.0"
