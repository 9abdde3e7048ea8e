class QuantizedTensor:
    """The stand-in has no tensors of this type."""
