"""Container images: a Dockerfile a stage, the shared layers, and what builds them.

Needs Python's standard library and docker.
"""
