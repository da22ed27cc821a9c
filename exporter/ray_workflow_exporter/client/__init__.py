"""Runs and tasks for commands and Python callers."""
