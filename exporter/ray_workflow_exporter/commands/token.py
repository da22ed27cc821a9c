"""`token`: generate a token for the tokens file."""

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
    help="What the token allows: read, or read and act.",
)
def token(name: str, role: str) -> None:
    """Generate a bearer token.

    Generate a token; its entry for the tokens file goes to stderr. NAME is who will use it: it
    appears in the audit log. The file holds a hash, so the token cannot be printed again.

    \b
    Examples:
      ray-workflow-exporter token on-call > token
      ray-workflow-exporter token prometheus --role read > token
    """
    generated, digest = new_token()
    click.echo(generated)
    click.echo(f"  - name: {name}\n    role: {role}\n    sha256: {digest}", err=True)
