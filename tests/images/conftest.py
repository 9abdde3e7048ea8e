"""The fixture `images` for the tests of this folder."""

from tests.images.kit import images

__all__ = ["images"]
