"""Drills with a storage that fails: one system call of a stage or of the launcher gets an error."""
