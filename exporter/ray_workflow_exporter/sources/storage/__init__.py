"""Workflow storage: what Ray wrote, read without changing it."""
