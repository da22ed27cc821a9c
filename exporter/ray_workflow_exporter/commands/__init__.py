"""The commands of the command line. To add one, write a file and add a row to COMMANDS."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import click


class _Command(NamedTuple):
    """Where a command is defined, and its line in the help text."""

    module: str
    attribute: str
    summary: str


# Imported on demand, so that `list` does not wait for the web server's libraries.
COMMANDS = {
    "serve": _Command("serve", "serve", "Run the exporter: serve metrics, page and API over HTTP."),
    "list": _Command("show", "list_runs", "List runs: live ones first, then the newest."),
    "show": _Command("show", "show", "Show one run: its state, DAG, tasks and failures."),
    "watch": _Command("show", "watch", "Watch all runs, or one run until it ends."),
    "cancel": _Command("act", "cancel", "Cancel a live run, or give up a RESUMABLE one."),
    "resume": _Command("act", "resume", "Resume a run, or all RESUMABLE runs."),
    "delete": _Command("act", "delete", "Delete a run that is not live, with all its outputs."),
    "forget": _Command(
        "act", "forget", "Forget a workflow that no longer exists: drop its counters."
    ),
    "ray-dashboard": _Command("ray_dashboard", "ray_dashboard", "Run the exporter inside Ray."),
    "grafana": _Command("export", "grafana", "Export dashboards for Grafana."),
    "prometheus": _Command("export", "prometheus", "Export alerts and rules for Prometheus."),
    "alertmanager": _Command("export", "alertmanager", "Export example routes for Alertmanager."),
    "kubernetes": _Command("kubernetes", "kubernetes", "Export the objects of the Helm chart."),
    "systemd": _Command("export", "systemd", "Export a unit for systemd."),
    "token": _Command("token", "token", "Generate a bearer token."),
    "version": _Command(
        "version", "show_version", "Print the versions of exporter, Python and Ray."
    ),
}


def load(name: str) -> click.Command:
    """Import a command."""
    row = COMMANDS[name]
    command: click.Command = getattr(import_module(f"{__name__}.{row.module}"), row.attribute)
    return command
