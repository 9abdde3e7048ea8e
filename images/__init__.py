"""Container images: one Dockerfile per stage, the shared layers, and the code that builds the images.

The code needs only Python's standard library and docker.
"""
