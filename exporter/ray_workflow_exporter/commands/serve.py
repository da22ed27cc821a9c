"""`serve`: the exporter itself."""

from __future__ import annotations

import click

from .. import logs
from ..exporter import Exporter
from ..server.listening import run_server
from .options import load_settings, settings_flags


@click.command()
@settings_flags(hidden=True)
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Watch workflows and serve their metrics over HTTP.

    Runs until SIGTERM or Ctrl-C. All settings may be given as flags, here or before the command:
    see `ray-workflow-exporter --help`.

    \b
    Examples:
      On the head node of a cluster that was started with `ray start --storage`:
        ray-workflow-exporter serve
      Over the storage of a cluster that is gone:
        ray-workflow-exporter serve --address none --storage s3://bucket/workflows
    """
    settings = load_settings(ctx)
    logs.configure(settings)
    exporter = Exporter(settings, keep=True)
    try:
        # Not before it listens: one that finds its port taken has touched nothing.
        run_server(exporter, settings, lambda _: exporter.start())
    finally:
        exporter.close()
