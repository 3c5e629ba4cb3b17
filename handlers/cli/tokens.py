"""The command `token`: prints the token in use, and creates, lists and revokes tokens of the server."""

from __future__ import annotations

import click
from click.core import ParameterSource

from handlers.cli.connection import Access, client_command
from handlers.cli.options import read_duration
from jobs.errors import OperatorError
from jobs.model import Json, Scope


@click.group(invoke_without_command=True, epilog="Without a subcommand: print the token that the other commands use.")
@click.option("--whoami", is_flag=True, help="Ask the server for the token's name and scopes.")
@client_command
def token(access: Access, *, whoami: bool, as_json: bool) -> None:
    """Print the token that the other commands use; create, list and revoke tokens."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        _print_token(access, whoami=whoami, as_json=as_json)
    elif misplaced := [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
        raise click.UsageError(f"--{misplaced[0].replace('as_', '').replace('_', '-')} must come after {context.invoked_subcommand!r}.")


def _print_token(access: Access, *, whoami: bool, as_json: bool) -> None:
    from handlers.cli.terminal import local_time, print_json, print_note

    found = access.token()
    if found is None:
        raise OperatorError(access.no_token())
    caller: Json = {}
    if whoami:
        with access.client() as client:
            caller = client.whoami()
    if as_json:
        print_json({"token": found.value, "source": found.source, **caller})
        return
    click.echo(found.value)
    print_note(f"Source: {found.source}.")
    if caller:
        expiry = f"; expires {local_time(caller['expires_at'])}" if caller["expires_at"] else ""
        print_note(f"Name: {caller['name']}; scopes: {', '.join(caller['scopes'])}{expiry}.")


@token.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice([str(scope) for scope in Scope]), help="What it may do.")
@click.option("--expires", metavar="DURATION", help="Time until the token expires, such as 12h or 30d; by default never.")
@client_command
def create_token(access: Access, *, name: str, scopes: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Create a token and print it. It cannot be shown again."""
    from handlers.cli.terminal import print_json, print_note

    expiry = {"expires_in_seconds": read_duration(expires)} if expires else {}
    with access.client() as client:
        created = client.create_token({"name": name, "scopes": sorted(set(scopes)), **expiry})
    if as_json:
        print_json(created)
        return
    click.echo(created["token"])
    print_note(f"Keep this token of {name!r}: it is not shown again. To revoke it: runcast token revoke {name}")


@token.command("list")
@client_command
def list_tokens(access: Access, *, as_json: bool) -> None:
    """List tokens, without their secrets."""
    with access.client() as client:
        tokens = client.tokens()
    from handlers.cli.terminal import output, print_json, table_of_tokens

    if as_json:
        print_json({"tokens": tokens})
        return
    output().print(table_of_tokens(tokens))


@token.command("revoke")
@click.argument("name", metavar="NAME_OR_ID")
@client_command
def revoke_token(access: Access, *, name: str, as_json: bool) -> None:
    """Revoke a token. The server rejects it from then on and closes its connections."""
    from handlers.cli.terminal import print_json

    with access.client() as client:
        found = next((one for one in client.tokens() if name in (one["name"], one["id"])), None)
        if found is None:
            raise OperatorError(f"There is no token {name!r}; see `runcast token list`.")
        client.revoke_token(found["id"])
    if as_json:
        print_json({**found, "revoked": True})
        return
    click.echo(f"{found['name']} is revoked")
