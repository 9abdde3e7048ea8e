"""vasevqa: make a fine-tuned vision-language model from photographs of ancient vases."""

import os

__version__ = "0.1.0"

# pydantic has no plugins here. Its search for them reads the metadata of every installed package at each start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
