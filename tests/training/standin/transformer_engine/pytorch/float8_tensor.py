class Float8Tensor:
    """The stand-in has no tensors of this type."""
