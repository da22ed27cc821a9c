"""The web page: list of runs, one run, its DAG, its buttons."""
