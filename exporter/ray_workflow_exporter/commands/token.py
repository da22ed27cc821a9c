"""`token`: make a token for the tokens file."""

from __future__ import annotations

import click

from ..server.auth.tokens import Role, new_token


@click.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.ACT.value,
    show_default=True,
    help="What its holder may do: read, or read and act.",
)
def token(name: str, role: str) -> None:
    """Draw a token, print it once, and the entry for the tokens file to standard error.

    \b
    Examples:
      ray-workflow-exporter token on-call > token
      ray-workflow-exporter token prometheus --role read > token
    """
    drawn, digest = new_token()
    click.echo(drawn)
    click.echo(f"  - name: {name}\n    role: {role}\n    sha256: {digest}", err=True)
