"""What follows from a run: its DAG, stages, critical path, root cause and expected end."""
