"""`python -m ray_workflow_exporter`: the command line."""

from __future__ import annotations

from .cli import main

main(prog_name="ray-workflow-exporter")
