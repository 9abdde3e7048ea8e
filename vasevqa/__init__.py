"""vasevqa: photographs of ancient vases in, a fine-tuned vision-language model out."""

__version__ = "0.1.0"
