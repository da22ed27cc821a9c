"""`serve`: run the exporter."""

from __future__ import annotations

import click

from .. import logs
from ..exporter import Exporter
from ..server.listening import run_server
from ..sources.storage.reader import leave_if_storage_hangs
from .options import load_settings, settings_flags


@click.command()
@settings_flags()
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Run the exporter: serve metrics, page and API over HTTP.

    Runs until SIGTERM or Ctrl-C. Each setting may also stand in the settings file or in a variable
    `RAY_WORKFLOW_EXPORTER_<SETTING>`.

    \b
    Examples:
      On the head node of a cluster that was started with `ray start --storage`:
        ray-workflow-exporter serve
      On the storage of a cluster that has ended:
        ray-workflow-exporter serve --address none --storage s3://bucket/workflows
    """
    settings = load_settings(ctx)
    logs.configure(settings)
    exporter = Exporter(settings, keep=True)
    try:
        # Polls begin once it listens: if its port is taken, nothing has been touched.
        run_server(exporter, settings, lambda _: exporter.start())
    finally:
        exporter.close()
    leave_if_storage_hangs()
